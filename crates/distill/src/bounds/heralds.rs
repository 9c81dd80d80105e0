//! What a station announced of a twin-field block, as counts.

use serde::{Deserialize, Serialize};

use super::Tally;

/// What a station announced of the windows of a block, by what the two ends said of these windows afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heralds<N = u64> {
    /// Windows that both ends chose for key, heralded or not.
    pub key_windows: N,
    /// Heralded ones, by the bit of the end that pairs them, before it does: it did not send (1), or it did (0).
    pub ones: N,
    pub zeros: N,
    /// Pairs of a 1 and a 0 that are two different bits at the other end, too: bits of the key.
    pub odd_pairs: N,
    /// Windows in which neither end sent.
    pub vacuum: Windows<N>,
    /// Windows in which one end sent a decoy and the other nothing: by the end that sent, then the weak and the strong
    /// decoy.
    pub alone: [[Windows<N>; 2]; 2],
    /// Windows in which both sent the weak decoy, with phases that fit.
    pub interfering: Windows<N>,
    /// How many of them were heralded by the detector that such phases keep dark.
    pub wrong: N,
}

/// Windows of one kind, and how many of them were heralded: one detector clicked, the other did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows<N = u64> {
    pub sent: N,
    pub heralded: N,
}

const COUNTS: usize = 17;

impl<N: Copy> Heralds<N> {
    /// All counts, in the order of the fields.
    pub fn counts(&self) -> [N; COUNTS] {
        let Self { key_windows, ones, zeros, odd_pairs, vacuum: v, alone: [a, b], interfering: i, wrong } = *self;
        let [[a1, a2], [b1, b2]] = [a, b].map(|of_end| of_end.map(|w| [w.sent, w.heralded]));
        let [[p, q], [r, s], [t, u], [x, y]] = [a1, a2, b1, b2];
        [key_windows, ones, zeros, odd_pairs, v.sent, v.heralded, p, q, r, s, t, u, x, y, i.sent, i.heralded, wrong]
    }

    /// The reverse of [`counts`](Self::counts).
    pub fn of_counts(counts: [N; COUNTS]) -> Self {
        let [key_windows, ones, zeros, odd_pairs, v, w, p, q, r, s, t, u, x, y, i, h, wrong] = counts;
        let windows = |sent, heralded| Windows { sent, heralded };
        Self {
            key_windows,
            ones,
            zeros,
            odd_pairs,
            vacuum: windows(v, w),
            alone: [[windows(p, q), windows(r, s)], [windows(t, u), windows(x, y)]],
            interfering: windows(i, h),
            wrong,
        }
    }

    /// What the ends compare of windows in which light of both interfered.
    pub fn check(&self) -> Tally<N> {
        Tally { bits: self.interfering.heralded, errors: self.wrong }
    }
}

impl Heralds {
    /// Of both together; nothing where a count does not hold it.
    pub(super) fn plus(&self, other: &Self) -> Option<Self> {
        let mut sums = self.counts();
        for (sum, more) in sums.iter_mut().zip(other.counts()) {
            *sum = sum.checked_add(more)?;
        }
        Some(Self::of_counts(sums))
    }

    pub(super) fn real(&self) -> Heralds<f64> {
        Heralds::of_counts(self.counts().map(|count| count as f64))
    }
}

impl Heralds<f64> {
    /// Whether all counts are numbers and none is more than what it is part of.
    pub(super) fn is_consistent(&self) -> bool {
        let Self { key_windows, ones, zeros, odd_pairs, vacuum, alone: [a, b], interfering, wrong } = self;
        let fits = |windows: &Windows<f64>| windows.heralded <= windows.sent;
        self.counts().into_iter().all(|count| count.is_finite() && count >= 0.0)
            && ones + zeros <= *key_windows
            && *odd_pairs <= ones.min(*zeros)
            && [vacuum, interfering].into_iter().chain(a).chain(b).all(fits)
            && *wrong <= interfering.heralded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_back_in_their_places() {
        let counts = core::array::from_fn(|index| index as u64);
        let heralds = Heralds::of_counts(counts);
        assert_eq!(heralds.counts(), counts);
        assert_eq!((heralds.key_windows, heralds.vacuum.sent, heralds.alone[1][0].heralded), (0, 4, 11));
        assert_eq!((heralds.interfering.sent, heralds.interfering.heralded, heralds.wrong), (14, 15, 16));
        assert_eq!(heralds.plus(&heralds).unwrap_or_default().counts(), counts.map(|count| 2 * count));
        assert_eq!(heralds.plus(&Heralds { wrong: u64::MAX, ..heralds }), None);
    }
}
