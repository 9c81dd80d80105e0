//! Which part of two recordings can belong together.

use distill::config::Acquisition;
use photonics::tag::{END_PS, UNIT_PS};

use super::recordings::Recording;
use super::seconds;
use crate::failure::Failure;

/// What is played of one recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where frame 0 of both begins, in ticks on the file's own clock.
    pub origin: i128,
    /// First frame, and how many.
    pub first: u64,
    pub frames: u64,
}

/// Both spans, and what was left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Alignment {
    pub spans: [Span; 2],
    pub remarks: [Vec<String>; 2],
}

/// A recording's first and last click on the common time line, in ticks.
#[derive(Clone, Copy)]
struct Reach {
    first: i128,
    last: i128,
    /// What was added to the file's time.
    shift: i128,
}

/// Finds what both recordings cover, give or take the difference of clocks that is searched.
pub fn align(ends: [&Recording; 2], frame_ps: u64, searched: &Acquisition) -> Result<Alignment, Failure> {
    let reaches = unwrapped(ends);
    let frame = i128::from((frame_ps / UNIT_PS).max(1));
    let search = i128::from(searched.search_ps / UNIT_PS);
    let window = i128::from(searched.window_ps / UNIT_PS);
    let begin = reaches[0].first.max(reaches[1].first);
    let end = reaches[0].last.min(reaches[1].last);
    if end - begin + search < window {
        return Err(apart(ends, reaches, (end - begin).max(0), searched));
    }
    let origin = origin(ends, reaches, frame);
    let slack = search / frame + 2;
    let longest = i128::from(END_PS / UNIT_PS) / frame - 1;
    let number = |time: i128| (time - origin) / frame;
    let mut remarks = [Vec::new(), Vec::new()];
    let mut spans = [Span { origin: 0, first: 0, frames: 0 }; 2];
    for (end, other) in [(0, 1), (1, 0)] {
        let (own, peer) = (reaches[end], reaches[other]);
        let first = number(own.first).max(number(peer.first) - slack);
        let last = number(own.last).min(number(peer.last) + slack).min(longest);
        spans[end] = Span {
            origin: origin - own.shift,
            first: u64::try_from(first).unwrap_or(0),
            frames: u64::try_from(last - first + 1).unwrap_or(0),
        };
        let said = &mut remarks[end];
        let whole = |ticks: i128| ticks > slack * frame;
        if whole(peer.first - own.first) {
            said.push(format!("it starts {:.3} s before the other one", seconds(peer.first - own.first)));
        }
        if whole(own.last - peer.last) {
            said.push(format!("it goes on {:.3} s longer than the other one", seconds(own.last - peer.last)));
        }
        if number(own.last) > longest {
            said.push("only its first 20 h are used".to_owned());
        }
    }
    Ok(Alignment { spans, remarks })
}

/// Where frame 0 begins on the common time line. Times that a tag can hold keep their frames, so that a recording makes the
/// key of the run that it was taken from; where they were moved, frames begin so that they are few.
fn origin(ends: [&Recording; 2], reaches: [Reach; 2], frame: i128) -> i128 {
    let first = reaches[0].first.min(reaches[1].first);
    let last = reaches[0].last.max(reaches[1].last);
    let wraps = |end: &Recording| {
        end.format.wrap_ticks().is_some_and(|wrap| end.last >= i128::try_from(wrap).unwrap_or(i128::MAX))
    };
    let moved = reaches.iter().any(|reach| reach.shift != 0) || ends.iter().any(|end| wraps(end));
    let held = first >= 0 && last < i128::from(END_PS / UNIT_PS);
    let aligned = if held { 0 } else { first.div_euclid(frame) * frame };
    let frames = |origin: i128| (last - origin).div_euclid(frame) - (first - origin).div_euclid(frame);
    if moved && frames(first) < frames(aligned) { first } else { aligned }
}

/// Where both counters wrap alike, one of the two may have wrapped once more before the recordings began.
fn unwrapped(ends: [&Recording; 2]) -> [Reach; 2] {
    let mut reaches = ends.map(|recording| Reach {
        first: recording.first + recording.shift,
        last: recording.last + recording.shift,
        shift: recording.shift,
    });
    let wraps = ends.map(|recording| recording.format.wrap_ticks().and_then(|ticks| i128::try_from(ticks).ok()));
    if let [Some(wrap), Some(other)] = wraps
        && wrap == other
    {
        let apart = reaches[1].first - reaches[0].first;
        let turns = (apart + wrap / 2).div_euclid(wrap);
        let behind = usize::from(turns < 0);
        let shift = turns.abs() * wrap;
        reaches[behind].first += shift;
        reaches[behind].last += shift;
        reaches[behind].shift += shift;
    }
    reaches
}

fn apart(ends: [&Recording; 2], reaches: [Reach; 2], common: i128, searched: &Acquisition) -> Failure {
    let spans: Vec<String> = ends.iter().zip(reaches).map(|(end, reach)| span(end, reach.first, reach.last)).collect();
    let window = searched.window_ps as f64 * 1e-9;
    let search = searched.search_ps as f64 * 1e-9;
    let common = seconds(common);
    let starts = seconds(reaches[0].first - reaches[1].first);
    let mut message = format!(
        "the recordings have {common:.3} s in common, less than the {window} ms that clocks are searched in: {}",
        spans.join(", ")
    );
    for end in ends {
        if let Some(error) = &end.failure {
            message = format!("{message}; {}: {error}", end.path.display());
        }
    }
    Failure::bad_input(message)
    .hint(format!(
        "clocks may differ by `acquisition.search` = {search} ms; if both recordings began at the same time, add `--shift {}={starts:.6}s`",
        ends[1].site
    ))
}

/// From when to when a recording lasts, for people.
pub fn span(recording: &Recording, first: i128, last: i128) -> String {
    format!("{} from {:.3} s to {:.3} s", recording.site, seconds(first), seconds(last))
}
