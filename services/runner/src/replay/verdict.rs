//! What a replay came to, in words.

use distill::config::Acquisition;
use topology::figure::Measured;

use super::alignment::{self, Alignment};
use super::recordings::Recording;
use super::seconds;
use crate::snapshot::RecordingRow;
use crate::verdict::{Kind, Reason};
use crate::watch::LinkReport;

/// This many bits without a single error are not of two detectors.
const BITS_JUDGED: u64 = 10_000;
/// Of two ends that choose their basis by themselves at most half of all clicks agree.
const KEPT_SHARE_MAX: f64 = 0.75;

/// What is known of the recordings before the link runs.
pub struct Findings {
    pub rows: Vec<RecordingRow>,
    /// Why clocks that were not found were not, and what to do about it.
    unlocked: [String; 2],
    /// Both ends have recorded clicks.
    of_pairs: bool,
}

impl Findings {
    pub fn of_pairs(ends: [&Recording; 2], alignment: &Alignment, frame_ps: u64, searched: &Acquisition) -> Self {
        let frame_s = frame_ps as f64 * 1e-12;
        let row = |index: usize| {
            let used_s = alignment.spans[index].frames as f64 * frame_s;
            row(ends[index], used_s, alignment.remarks[index].clone())
        };
        let of = |recording: &Recording| {
            let (first, last) = (recording.first + recording.shift, recording.last + recording.shift);
            alignment::span(recording, first, last)
        };
        let search = format!(
            "acquisition.search = {} ms and frequencySearch = {} ns/s",
            searched.search_ps as f64 * 1e-9,
            searched.frequency_search * 1e9
        );
        let why = format!("no coincidence peak was found within {search}; {}", ends.map(of).join(", "));
        let hint = "are both files of the same time and the right sites? Where clocks are further apart, give \
                    `--shift SITE=TIME` or a wider search; where a file counts in another unit, give `--format`";
        Self { rows: vec![row(0), row(1)], unlocked: [why, hint.to_owned()], of_pairs: true }
    }

    /// Of a receiver whose transmitter's choices are there, too.
    pub fn of_pulses(receiver: &Recording, frames: u64, frame_ps: u64, remarks: Vec<String>) -> Self {
        let used_s = frames as f64 * frame_ps as f64 * 1e-12;
        let unlocked = [
            "no pulses were found in the clicks".to_owned(),
            "is it the recorded topology? Where a file counts in another unit, give `--format`".to_owned(),
        ];
        Self { rows: vec![row(receiver, used_s, remarks)], unlocked, of_pairs: false }
    }

    /// Why the replay did not do what it should; nothing where it did.
    pub fn judge(&self, links: &[LinkReport]) -> Option<Reason> {
        let link = links.first()?;
        let status = &link.status;
        let (bits, errors) = compared(link);
        let clicks = self.rows.iter().map(|row| row.clicks).min().unwrap_or(0);
        let same = |what: String| {
            let reason = Reason::of_link(Kind::BadInput, &link.name, what);
            Some(reason.hint("are both files of one instrument? Do not use this key"))
        };
        if self.of_pairs && bits >= BITS_JUDGED && errors == 0 {
            return same(format!("QBER is exactly 0 over {bits} bits: two instruments do not agree like that"));
        }
        if self.of_pairs && bits >= BITS_JUDGED && bits as f64 > KEPT_SHARE_MAX * clicks as f64 {
            return same(format!("of {clicks} clicks {bits} have a partner in the same basis: no link is like that"));
        }
        if status.blocks > 0 {
            return None;
        }
        let no_key = |why: String| Reason::of_link(Kind::NoKey, &link.name, format!("no key: {why}"));
        if !link.locked {
            let [why, hint] = &self.unlocked;
            return Some(no_key(why.clone()).hint(hint.as_str()));
        }
        let why = link.last_abort.as_deref().unwrap_or("the recordings are shorter than a round");
        Some(no_key(format!("the clocks were found, but {why}")).hint("`qkdnet plan` says how long a round is"))
    }
}

fn row(recording: &Recording, used_s: f64, remarks: Vec<String>) -> RecordingRow {
    let ended = recording.failure.as_ref().map(|error| format!("{error}; {}", error.advice()));
    RecordingRow {
        site: recording.site.clone(),
        file: recording.path.display().to_string(),
        format: recording.format.to_string(),
        sha256: recording.sha256.clone(),
        clicks: recording.clicks,
        lasts_s: seconds(recording.last - recording.first),
        used_s,
        skipped: recording.damage.skipped(),
        skipped_first_byte: recording.damage.first_at,
        remarks: ended.into_iter().chain(remarks).collect(),
    }
}

/// Bits whose errors are known, and those errors: of every error rate that the link is shown by.
fn compared(link: &LinkReport) -> (u64, u64) {
    let counted = link.counted();
    let cases = link.listing.brief.iter().filter_map(|figure| match counted.get(*figure)? {
        Measured::Ratio { count, total } => Some((total, count)),
        Measured::Value(_) => None,
    });
    cases.fold((0, 0), |(bits, errors), (more, wrong)| (bits + more, errors + wrong))
}
