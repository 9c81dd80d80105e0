//! The names of what is measured or predicted of a link: one registry for documents, comparisons and JSON.
//!
//! A figure that was given a name keeps it. A protocol adds names here, never a column of its own elsewhere.

/// A figure of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Figure {
    /// Secret bits per simulated second, by the bound that the topology chooses.
    SecretKeyRate,
    /// The same by the finite bound.
    SecretKeyRateFinite,
    /// Share of the key that authentication used up.
    AuthenticationShare,
    /// Error rate of the key basis Z.
    QberZ,
    /// Error rate of the check basis X.
    QberX,
    /// Interference visibility that the error rate of basis X stands for.
    Visibility,
    /// Bits per second that both ends keep, in each basis.
    SiftedRateZ,
    SiftedRateX,
    /// Full width at half maximum of the coincidence peak.
    PeakWidth,
    /// Difference of the two clocks, and what was left of it before its last correction.
    ClockOffset,
    ClockResidual,
    /// Intensity of the pump, relative to nominal.
    Pump,
}

impl Figure {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::SecretKeyRate,
        Self::SecretKeyRateFinite,
        Self::AuthenticationShare,
        Self::QberZ,
        Self::QberX,
        Self::Visibility,
        Self::SiftedRateZ,
        Self::SiftedRateX,
        Self::PeakWidth,
        Self::ClockOffset,
        Self::ClockResidual,
        Self::Pump,
    ];

    /// As it stands in documents and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::SecretKeyRate => "secretKeyRate",
            Self::SecretKeyRateFinite => "secretKeyRateFinite",
            Self::AuthenticationShare => "authenticationShare",
            Self::QberZ => "qberZ",
            Self::QberX => "qberX",
            Self::Visibility => "visibility",
            Self::SiftedRateZ => "siftedRateZ",
            Self::SiftedRateX => "siftedRateX",
            Self::PeakWidth => "peakWidth",
            Self::ClockOffset => "clockOffset",
            Self::ClockResidual => "clockResidual",
            Self::Pump => "pump",
        }
    }

    /// Unit of its values; 1 for shares and ratios.
    pub fn unit(self) -> &'static str {
        match self {
            Self::SecretKeyRate | Self::SecretKeyRateFinite | Self::SiftedRateZ | Self::SiftedRateX => "bit/s",
            Self::AuthenticationShare | Self::QberZ | Self::QberX | Self::Visibility | Self::Pump => "1",
            Self::PeakWidth | Self::ClockOffset | Self::ClockResidual => "ps",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_figures_have_one_name() {
        let mut names = Figure::ALL.map(Figure::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Figure::ALL.len());
    }
}
