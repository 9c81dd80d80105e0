//! From tags to detections of a pulsed link: clicks of one pulse together, and none while any detector is dead.
//!
//! A proof that the key and the check basis are treated alike needs every detector to be ready in every pulse that
//! counts. So a click is dropped, whatever basis it is of, if any detector of the receiver has clicked within the dead
//! time before, kept or not. Two detectors that fire in one pulse are one detection, a double click.
//!
//! What a link does stands in `distill`, which knows numbers of pulses. The rule is written here a second time on
//! purpose, by times of tags alone: as an oracle that shares no code with it.

use photonics::tag::{PATTERN_MASK, UNIT_PS, units};

/// What was detected of one pulse.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Detection {
    /// Local time of its first click in units of a tag.
    pub units: u64,
    /// The ports that fired, a bit for each.
    pub pattern: u8,
}

/// Which port fired is a bit of raw key: it is not printed.
impl std::fmt::Debug for Detection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Detection").field("units", &self.units).finish_non_exhaustive()
    }
}

impl Detection {
    /// Whether more than one port fired.
    pub fn is_double(&self) -> bool {
        self.pattern.count_ones() > 1
    }
}

/// What became of the clicks so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub clicks: u64,
    /// Clicks that were dropped because a detector was dead.
    pub dead: u64,
    pub detections: u64,
    /// Detections of several ports.
    pub doubles: u64,
}

/// Groups the tags of one receiver, frame after frame.
#[derive(Clone, Debug)]
pub struct Guard {
    pulse_units: u64,
    dead_units: u64,
    open: Option<Detection>,
    /// The last click, dropped ones too.
    last: Option<u64>,
    tally: Tally,
}

impl Guard {
    /// Clicks within `pulse_ps` of the first one are of one pulse; a detector is dead for `dead_ps` after a click.
    pub fn new(pulse_ps: f64, dead_ps: f64) -> Self {
        let whole = |length_ps: f64| (length_ps.max(0.0) / UNIT_PS as f64).ceil() as u64;
        Self {
            pulse_units: whole(pulse_ps),
            dead_units: whole(dead_ps),
            open: None,
            last: None,
            tally: Tally::default(),
        }
    }

    /// Takes tags in order of time and appends the detections that are complete.
    pub fn take(&mut self, tags: &[u64], detections: &mut Vec<Detection>) {
        for &tag in tags {
            let (now, pattern) = (units(tag), (tag & PATTERN_MASK) as u8);
            if pattern == 0 {
                continue;
            }
            self.tally.clicks += 1;
            if let Some(open) = &mut self.open
                && now.saturating_sub(open.units) <= self.pulse_units
            {
                open.pattern |= pattern;
                self.last = Some(now);
                continue;
            }
            self.close(detections);
            if self.last.is_some_and(|last| now.saturating_sub(last) < self.dead_units) {
                self.tally.dead += 1;
            } else {
                self.open = Some(Detection { units: now, pattern });
            }
            self.last = Some(now);
        }
    }

    /// Ends the last detection: no more tags come.
    pub fn finish(&mut self, detections: &mut Vec<Detection>) {
        self.close(detections);
    }

    pub fn tally(&self) -> Tally {
        self.tally
    }

    fn close(&mut self, detections: &mut Vec<Detection>) {
        if let Some(detection) = self.open.take() {
            self.tally.detections += 1;
            self.tally.doubles += u64::from(detection.is_double());
            detections.push(detection);
        }
    }
}
