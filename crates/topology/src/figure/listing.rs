//! Which figures a link has, by its protocol and fidelity, and in what order they are listed.

use super::Figure;
use crate::document::{Fidelity, Protocol};

/// The figures of one kind of link. Tables, comparisons, rows of a cluster and summaries take them from here.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Columns of a live table, in this order.
    pub columns: &'static [Figure],
    /// The few that say most: of each block that is stored, of a whole run, and in the rows of a cluster.
    pub brief: &'static [Figure],
    /// What a whole run is judged by through the mean over its seconds.
    pub averaged: &'static [Figure],
    /// Told beside the columns, for programs.
    pub beside: &'static [Figure],
}

/// What every link has, as its end is key, whatever its light is.
pub(super) const OF_EVERY_LINK: [Figure; 7] = [
    Figure::SecretKeyRate,
    Figure::SecretKeyRateFinite,
    Figure::AuthenticationShare,
    Figure::FirstBlock,
    Figure::Restarts,
    Figure::Interventions,
    Figure::Availability,
];

const BBM92_ENERGY_TIME: Listing = Listing {
    columns: &[
        Figure::SiftedRateZ,
        Figure::SiftedRateX,
        Figure::QberZ,
        Figure::QberX,
        Figure::ClockOffset,
        Figure::Visibility,
    ],
    brief: &[Figure::QberZ, Figure::QberX],
    averaged: &[Figure::PeakWidth],
    beside: &[
        Figure::ClickRate,
        Figure::PeakWidth,
        Figure::ClockResidual,
        Figure::ClockFrequency,
        Figure::Pump,
        Figure::Phase,
        Figure::PolarisationFirst,
        Figure::PolarisationSecond,
    ],
};

/// Of links of pulses: BB84 with single photons.
const BB84: Listing = Listing {
    columns: &[
        Figure::SiftedRateZ,
        Figure::SiftedRateX,
        Figure::QberZ,
        Figure::QberX,
        Figure::ClockOffset,
        Figure::ClickRate,
    ],
    brief: &[Figure::QberZ, Figure::QberX],
    averaged: &[],
    beside: &[
        Figure::GainSignal,
        Figure::ClockResidual,
        Figure::ClockFrequency,
        Figure::Phase,
        Figure::PolarisationFirst,
        Figure::PolarisationSecond,
    ],
};

/// The same with decoys. Of links with one decoy the vacuum is not measured.
const DECOY_BB84: Listing = Listing {
    beside: &[
        Figure::GainSignal,
        Figure::GainDecoy,
        Figure::GainVacuum,
        Figure::ClockResidual,
        Figure::ClockFrequency,
        Figure::Phase,
        Figure::PolarisationFirst,
        Figure::PolarisationSecond,
    ],
    ..BB84
};

/// Where light is drawn as counts there is no clock to find, and nothing that polarisation and phase are steered by.
const BBM92_COUNTS: Listing = Listing {
    columns: &[
        Figure::SiftedRateZ,
        Figure::SiftedRateX,
        Figure::QberZ,
        Figure::QberX,
        Figure::ClickRate,
        Figure::Visibility,
    ],
    brief: &[Figure::QberZ, Figure::QberX],
    averaged: &[],
    beside: &[Figure::Pump],
};

const BB84_COUNTS: Listing = Listing {
    columns: &[Figure::SiftedRateZ, Figure::SiftedRateX, Figure::QberZ, Figure::QberX, Figure::ClickRate],
    brief: &[Figure::QberZ, Figure::QberX],
    averaged: &[],
    beside: &[Figure::GainSignal],
};

const DECOY_BB84_COUNTS: Listing =
    Listing { beside: &[Figure::GainSignal, Figure::GainDecoy, Figure::GainVacuum], ..BB84_COUNTS };

/// Bits of windows for key that pairing leaves, and heralds of weak decoys that interfered.
const SNS_TWIN_FIELD: Listing = Listing {
    columns: &[Figure::SiftedRateZ, Figure::QberZ, Figure::QberX],
    brief: &[Figure::QberZ, Figure::QberX],
    averaged: &[],
    beside: &[],
};

static NOTHING: Listing = Listing { columns: &[], brief: &[], averaged: &[], beside: &[] };

impl Listing {
    /// Of a link whose clicks are simulated.
    pub fn of(protocol: Protocol) -> &'static Self {
        Self::at(protocol, Fidelity::Tags)
    }

    pub fn at(protocol: Protocol, fidelity: Fidelity) -> &'static Self {
        match (protocol, fidelity) {
            (Protocol::Bbm92EnergyTime, Fidelity::Tags) => &BBM92_ENERGY_TIME,
            (Protocol::Bbm92EnergyTime, Fidelity::Counts) => &BBM92_COUNTS,
            (Protocol::DecoyBb84, Fidelity::Tags) => &DECOY_BB84,
            (Protocol::DecoyBb84, Fidelity::Counts) => &DECOY_BB84_COUNTS,
            (Protocol::SinglePhotonBb84, Fidelity::Tags) => &BB84,
            (Protocol::SinglePhotonBb84, Fidelity::Counts) => &BB84_COUNTS,
            (Protocol::SnsTwinField, _) => &SNS_TWIN_FIELD,
        }
    }

    /// All that a link of this kind tells.
    pub fn all(&self) -> impl Iterator<Item = Figure> {
        OF_EVERY_LINK.iter().chain(self.columns).chain(self.beside).copied()
    }
}

impl Default for &'static Listing {
    /// Of a link of which nothing is known.
    fn default() -> Self {
        &NOTHING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_link_lists_each_of_its_figures_once_and_shows_only_what_it_has() {
        for protocol in
            [Protocol::Bbm92EnergyTime, Protocol::DecoyBb84, Protocol::SinglePhotonBb84, Protocol::SnsTwinField]
        {
            let of_tags: Vec<Figure> = Listing::of(protocol).all().collect();
            for fidelity in [Fidelity::Tags, Fidelity::Counts] {
                let listing = Listing::at(protocol, fidelity);
                let all: Vec<Figure> = listing.all().collect();
                let once: std::collections::BTreeSet<Figure> = all.iter().copied().collect();
                assert_eq!(once.len(), all.len());
                assert!(listing.brief.iter().chain(listing.averaged).all(|figure| once.contains(figure)));
                assert!(all.iter().all(|figure| of_tags.contains(figure)), "counts have no figure of their own");
            }
        }
    }
}
