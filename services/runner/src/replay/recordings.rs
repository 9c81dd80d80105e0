//! The recordings of a replay: what each of them is, and whether it can be one.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use detector::Bytes;
use photonics::tag::UNIT_PS;
use photonics::tagfile::{
    Damage, Format, FrameReader, Prints, SHARED_MIN, Survey, TagFileError, TagReader, recognise, survey,
};
use sha2::{Digest, Sha256};
use topology::plan::Plan;

use super::Recordings;
use crate::failure::Failure;

/// A format is recognised from this many bytes.
const HEAD_BYTES: u64 = 1 << 16;
/// Detectors of an end.
const DETECTORS: i32 = 4;
/// What Swabian's binary files are called.
const SWABIAN: &str = "ttbin";

/// One end's recording, surveyed.
pub struct Recording {
    pub site: String,
    pub path: PathBuf,
    pub format: Format,
    /// Of the file as it is.
    pub sha256: String,
    pub clicks: u64,
    /// Of the first and the last click, in ticks on the file's clock.
    pub first: i128,
    pub last: i128,
    pub damage: Damage,
    /// Why it is not used to its end.
    pub failure: Option<TagFileError>,
    pub prints: Prints,
    /// Channels that are detectors 1 to 4.
    pub channels: Vec<i32>,
    /// What to add to its time, in ticks.
    pub shift: i128,
}

impl Recording {
    /// Its frames, from the start of the file.
    pub fn frames(&self, frame_ps: u64) -> Result<FrameReader<Bytes>> {
        let file = File::open(&self.path).with_context(|| format!("open {}", self.path.display()))?;
        let file: Bytes = Box::new(file);
        let reader = TagReader::new(file, self.format).with_context(|| format!("read {}", self.path.display()))?;
        Ok(FrameReader::new(reader, frame_ps, self.channels.clone()))
    }
}

/// Surveys both recordings; the order is that of the plan's ends.
pub fn open(given: &Recordings, plan: &Plan, link: &str) -> Result<Vec<Recording>, Failure> {
    let sites: Vec<&str> = plan.modules().map(|module| module.site.as_str()).collect();
    check_sites(given, &sites, link)?;
    let mut recordings = Vec::new();
    for site in sites {
        recordings.push(of_site(given, site, "the tags of both ends are needed", "give `--tags SITE=FILE` twice")?);
    }
    let [one, other] = &recordings[..] else {
        return Err(Failure::bad_input(format!("link `{link}` does not have two ends")));
    };
    refuse_the_same(one, other)?;
    Ok(recordings)
}

/// Refuses what is said of a site that is no end.
pub fn check_sites(given: &Recordings, sites: &[&str], link: &str) -> Result<(), Failure> {
    let named = given.tags.iter().map(|(site, _)| Some(site));
    let named = named.chain(given.formats.iter().map(|(site, _)| site.as_ref()));
    let named = named.chain(given.channels.iter().map(|(site, _)| site.as_ref()));
    let named = named.chain(given.shifts_ps.iter().map(|(site, _)| Some(site)));
    for site in named.flatten() {
        if !sites.contains(&site.as_str()) {
            return Err(Failure::bad_input(format!("link `{link}` has no end at `{site}`"))
                .hint(format!("ends: {}", sites.join(", "))));
        }
    }
    Ok(())
}

/// Surveys the recording of a site, of which there must be one.
pub fn of_site(given: &Recordings, site: &str, needed: &str, hint: &str) -> Result<Recording, Failure> {
    let mut files = given.tags.iter().filter(|(of, _)| of == site);
    let (Some((_, path)), None) = (files.next(), files.next()) else {
        return Err(Failure::bad_input(format!("{needed}, those of `{site}` once")).hint(hint));
    };
    let here = |of: &Option<String>| of.as_deref().is_none_or(|of| of == site);
    let format = given.formats.iter().rfind(|(of, _)| here(of)).map(|(_, format)| *format);
    let channels = given.channels.iter().rfind(|(of, _)| here(of)).map(|(_, channels)| channels.clone());
    let shift_ps: i128 = given.shifts_ps.iter().filter(|(of, _)| of == site).map(|(_, shift)| *shift).sum();
    examine(site, path, format, channels, shift_ps.div_euclid(i128::from(UNIT_PS)))
}

/// Reads a recording from end to end.
fn examine(
    site: &str,
    path: &Path,
    format: Option<Format>,
    channels: Option<Vec<i32>>,
    shift: i128,
) -> Result<Recording, Failure> {
    if !path.is_file() {
        return Err(Failure::bad_input(format!("{} is not a file", path.display())));
    }
    let bad = |error: &TagFileError| {
        Failure::bad_input(format!("{}: {error}", path.display())).hint(error.advice().to_owned())
    };
    let mut file = File::open(path).map_err(|error| Failure::bad_input(format!("open {}: {error}", path.display())))?;
    let mut head = Vec::new();
    let read = (&mut file).take(HEAD_BYTES).read_to_end(&mut head);
    read.map_err(|source| bad(&TagFileError::Io { offset: 0, source }))?;
    let swabian = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(SWABIAN));
    let format = match format {
        Some(format) => format,
        None if swabian => return Err(bad(&TagFileError::swabian())),
        None => recognise(&head).map_err(|error| bad(&error))?,
    };
    let mut bytes = Hashing { inner: Cursor::new(head).chain(file), hash: Sha256::new() };
    let survey = survey(TagReader::new(&mut bytes, format).map_err(|error| bad(&error))?);
    // What is not understood belongs to the file all the same.
    let rest = std::io::copy(&mut bytes, &mut std::io::sink());
    rest.map_err(|source| bad(&TagFileError::Io { offset: 0, source }))?;
    let sha256 = bytes.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    check(path, &survey)?;
    let channels = detectors(path, &survey, channels)?;
    let ticks = |time: u128| i128::try_from(time).unwrap_or(i128::MAX / 4);
    Ok(Recording {
        site: site.to_owned(),
        path: path.to_owned(),
        format,
        sha256,
        clicks: survey.clicks,
        first: ticks(survey.first),
        last: ticks(survey.last),
        damage: survey.damage,
        failure: survey.failure,
        prints: survey.prints,
        channels,
        shift,
    })
}

/// Refuses what holds nothing that can be used.
fn check(path: &Path, survey: &Survey) -> Result<(), Failure> {
    let refused = |what: String, advice: &str| Failure::bad_input(format!("{}: {what}", path.display())).hint(advice);
    match &survey.failure {
        // More damage than recording, or no recording at all.
        Some(error @ (TagFileError::Disorder { .. } | TagFileError::TooManyChannels { .. })) => {
            return Err(refused(error.to_string(), error.advice()));
        }
        Some(error) if survey.clicks == 0 => return Err(refused(error.to_string(), error.advice())),
        _ => {}
    }
    if survey.clicks == 0 {
        let first = survey.damage.first_at.unwrap_or(0);
        let what = format!("byte {first}: there is no click in this file of format {}", survey.format);
        return Err(refused(what, "say with `--format` what the file is"));
    }
    let repeated = survey.prints.repeated();
    if repeated >= SHARED_MIN {
        let what = "it holds the same clicks more than once".to_owned();
        return Err(refused(what, "were recordings joined? Each click is distilled once: split the file"));
    }
    Ok(())
}

/// Which channels are the detectors.
fn detectors(path: &Path, survey: &Survey, asked: Option<Vec<i32>>) -> Result<Vec<i32>, Failure> {
    let found: Vec<i32> = survey.channels.keys().copied().collect();
    let names = || found.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
    if let Some(asked) = asked {
        if !asked.iter().any(|channel| found.contains(channel)) {
            return Err(Failure::bad_input(format!("{}: no click is of a channel of `--channels`", path.display()))
                .hint(format!("channels with clicks: {}", names())));
        }
        return Ok(asked);
    }
    let within = |range: std::ops::RangeInclusive<i32>| found.iter().all(|channel| range.contains(channel));
    if within(1..=DETECTORS) {
        Ok((1..=DETECTORS).collect())
    } else if within(0..=DETECTORS - 1) {
        Ok((0..DETECTORS).collect())
    } else if found.len() == DETECTORS as usize {
        Ok(found)
    } else {
        let what = format!("{}: which of the channels {} are the four detectors is not said", path.display(), names());
        Err(Failure::bad_input(what).hint("name short, long, plus and minus: `--channels SITE=1,2,3,4`"))
    }
}

/// Two ends never record the same clicks.
fn refuse_the_same(one: &Recording, other: &Recording) -> Result<(), Failure> {
    let shared = one.prints.shared(&other.prints);
    if one.sha256 != other.sha256 && shared < SHARED_MIN {
        return Ok(());
    }
    let what = if one.sha256 == other.sha256 { "are one recording" } else { "hold the same clicks" };
    Err(Failure::bad_input(format!("{} and {} {what}", one.path.display(), other.path.display()))
        .hint("give each end what was recorded there"))
}

/// What passes through is hashed.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}
