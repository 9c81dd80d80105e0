//! Units of time in files, and ticks of 4 ps.

use crate::tag::UNIT_PS;

const AS_PER_PS: u128 = 1_000_000;
const AS_PER_TICK: u128 = UNIT_PS as u128 * AS_PER_PS;

/// What a file counts in, in attoseconds, so that 1/256 ns (3.90625 ps) is a whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    attoseconds: u64,
}

impl Unit {
    /// 1/256 ns, of an `a1` word.
    pub const A1: Self = Self { attoseconds: 3_906_250 };
    /// One tick of this program.
    pub const TICK: Self = Self { attoseconds: AS_PER_TICK as u64 };
    /// 1/8 ns, of older instruments.
    pub const EIGHTH_NS: Self = Self { attoseconds: 125_000_000 };
    pub const PS: Self = Self { attoseconds: AS_PER_PS as u64 };

    /// A unit that a file's header states; `None` where it is nothing, or longer than a millisecond.
    pub fn of_seconds(seconds: f64) -> Option<Self> {
        let attoseconds = (seconds * 1e18).round();
        (1.0..=1e15).contains(&attoseconds).then_some(Self { attoseconds: attoseconds as u64 })
    }

    /// The tick that is closest to `count` units. For 1/256 ns it is `(250 * count + 128) / 256`: exact for what
    /// [`Self::of_ticks`] made, up to 2 ps off for other files.
    pub fn ticks(self, count: u128) -> u128 {
        (count * u128::from(self.attoseconds) + AS_PER_TICK / 2) / AS_PER_TICK
    }

    /// The count that is closest to `ticks`. For 1/256 ns it is `(256 * ticks + 125) / 250`.
    pub fn of_ticks(self, ticks: u128) -> u128 {
        let unit = u128::from(self.attoseconds);
        (ticks * AS_PER_TICK + unit / 2) / unit
    }

    /// `count` units in picoseconds.
    pub fn ps(self, count: u128) -> u128 {
        count * u128::from(self.attoseconds) / AS_PER_PS
    }

    /// The whole units in this number of picoseconds.
    pub fn units_of_ps(self, ps: u128) -> u128 {
        ps * AS_PER_PS / u128::from(self.attoseconds)
    }
}
