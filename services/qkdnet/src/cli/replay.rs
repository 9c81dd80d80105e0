//! `qkdnet replay`: whose recordings, and what they are.

use std::path::PathBuf;

use clap::Args;
use photonics::tagfile::Format;
use runner::replay::{ForSite, Recordings};
use topology::quantity;

use super::{OutputArgs, StateArgs};

/// Distils key from recordings: raw time tags of both ends, or of a receiver beside what its transmitter chose.
///
/// Formats: a1 (64-bit words that count 1/256 ns; `a1-high-first` with the halves swapped), raw-125ps (high half first,
/// 1/8 ns), a2 (a1 as text), csv (columns of time and channel; the header says which and the unit, otherwise ps), ptu
/// (PicoQuant, T2 mode). Which one a file is shows in it; only `a1-4ps` (recordings of qkdnet up to 0.1, which counted 4 ps)
/// and `raw-125ps` have to be named.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// Topology file; `-` is standard input.
    pub file: PathBuf,
    /// Link whose tags these are; needed where the topology has several.
    #[arg(long, value_name = "LINK")]
    pub link: Option<String>,
    /// Recorded tags of one end; give it for both ends, on a link of pulses for the receiver alone.
    #[arg(long = "tags", value_name = "SITE=FILE", value_parser = site_file, required = true, num_args = 1)]
    pub tags: Vec<(String, PathBuf)>,
    /// What the transmitter of a link of pulses chose: the file that `up --record` wrote of it. It is raw key.
    #[arg(long, value_name = "FILE")]
    pub choices: Option<PathBuf>,
    /// What the recordings are, where that does not show.
    #[arg(long = "format", value_name = "[SITE=]FORMAT", value_parser = format)]
    pub formats: Vec<ForSite<Format>>,
    /// Channels that are the detectors short, long, plus, minus, such as `1,2,3,4`.
    #[arg(long = "channels", value_name = "[SITE=]C,C,C,C", value_parser = channels, allow_hyphen_values = true)]
    pub channels: Vec<ForSite<Vec<i32>>>,
    /// Time to add to the tags of one end, such as `valrose=-5s`, where the clocks are further apart than is searched.
    #[arg(long = "shift", value_name = "SITE=TIME", value_parser = shift, allow_hyphen_values = true)]
    pub shifts: Vec<(String, i128)>,
    /// Seed of the run that was recorded.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Data directory whose placed authentication secrets, not used by any run yet, are taken; without it they are drawn.
    #[arg(long, value_name = "DIR")]
    pub reserve: Option<PathBuf>,
    /// Directory for keys, reserves and traces.
    #[arg(long, value_name = "DIR", default_value = "qkdnet-data/replay")]
    pub data: PathBuf,
    #[command(flatten)]
    pub state: StateArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl ReplayArgs {
    /// What is said of the recordings.
    pub fn recordings(&self) -> Recordings {
        Recordings {
            link: self.link.clone(),
            tags: self.tags.clone(),
            choices: self.choices.clone(),
            formats: self.formats.clone(),
            channels: self.channels.clone(),
            shifts_ps: self.shifts.clone(),
        }
    }
}

fn site_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((site, file)) if !site.is_empty() && !file.is_empty() => Ok((site.to_owned(), PathBuf::from(file))),
        _ => Err("write the site and the file, such as valrose=valrose.tags".to_owned()),
    }
}

fn for_site(text: &str) -> ForSite<&str> {
    match text.split_once('=') {
        Some((site, rest)) => (Some(site.to_owned()), rest),
        None => (None, text),
    }
}

fn format(text: &str) -> Result<ForSite<Format>, String> {
    let (site, name) = for_site(text);
    name.parse().map(|format| (site, format))
}

fn channels(text: &str) -> Result<ForSite<Vec<i32>>, String> {
    let (site, list) = for_site(text);
    let channels: Option<Vec<i32>> = list.split(',').map(|channel| channel.trim().parse().ok()).collect();
    let distinct = |channels: &Vec<i32>| (0..channels.len()).all(|i| !channels[..i].contains(&channels[i]));
    let channels = channels.filter(|channels| channels.len() == 4 && distinct(channels));
    channels.map(|channels| (site, channels)).ok_or_else(|| "write four different channels, such as 1,2,3,4".to_owned())
}

/// In picoseconds.
fn shift(text: &str) -> Result<(String, i128), String> {
    let say = |error: String| format!("{error}; write the site and a time, such as valrose=-5s");
    let (site, time) = text.split_once('=').ok_or_else(|| say("there is no `=`".to_owned()))?;
    let (sign, time) = match time.trim().strip_prefix('-') {
        Some(time) => (-1, time),
        None => (1, time.trim().trim_start_matches('+')),
    };
    let time: quantity::Duration = time.parse().map_err(|error| say(format!("{error}")))?;
    Ok((site.to_owned(), sign * i128::from(time.rounded())))
}
