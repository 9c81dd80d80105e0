//! A link of the document to typed parts: which kind it is, and that what stands in it belongs to that kind.
//!
//! Checks and planner both take what comes out of here, so that no combination of protocol, source and instruments is
//! judged twice. A kind of link is a variant of [`LinkKind`], with a module in `checks` and one in `plan::links`.

use crate::checks::Finding;
use crate::document::{
    Analyser, Arm, Clock, Detector, EnergyTimeAnalyser, FreeRunningClock, Link, Protocol, Snspd, Source, SpdcCw,
};

/// A link with its parts taken out of their variants.
pub(crate) enum LinkKind<'a> {
    /// A source of pairs in the middle, a receiver at each end.
    Entangled(EntangledLink<'a>),
}

/// BBM92 with energy-time entangled pairs.
pub(crate) struct EntangledLink<'a> {
    pub link: &'a Link,
    pub source: &'a SpdcCw,
    /// By output of the source.
    pub ends: [EntangledEnd<'a>; 2],
}

/// An arm with the instruments at its end.
#[derive(Clone, Copy)]
pub(crate) struct EntangledEnd<'a> {
    pub arm: &'a Arm,
    pub analyser: &'a EnergyTimeAnalyser,
    pub detector: &'a Snspd,
    pub clock: &'a FreeRunningClock,
}

/// The kind of a link, or what in it does not belong together; paths are below the link.
pub(crate) fn resolve(link: &Link) -> Result<LinkKind<'_>, Vec<Finding>> {
    match link.protocol {
        Protocol::Bbm92EnergyTime => entangled(link).map(LinkKind::Entangled),
    }
}

fn entangled(link: &Link) -> Result<EntangledLink<'_>, Vec<Finding>> {
    let Ok(arms) = <&[Arm; 2]>::try_from(link.arms.as_slice()) else {
        let message = format!("a link of entangled pairs with {} arms", link.arms.len());
        return Err(vec![Finding::error("arms", message, "exactly 2")]);
    };
    let Source::SpdcCw(source) = &link.source;
    Ok(EntangledLink { link, source, ends: arms.each_ref().map(EntangledEnd::new) })
}

impl<'a> EntangledEnd<'a> {
    fn new(arm: &'a Arm) -> Self {
        let Analyser::EnergyTime(analyser) = &arm.analyser;
        let Detector::Snspd(detector) = &arm.detector;
        let Clock::Rubidium(clock) = &arm.clock;
        EntangledEnd { arm, analyser, detector, clock }
    }

    pub fn site(&self) -> &'a str {
        self.arm.site.as_str()
    }

    /// Fibre, devices and detector.
    pub fn loss_db(&self) -> f64 {
        self.arm.fibre.loss_db() - 10.0 * self.detector.efficiency.value().max(f64::MIN_POSITIVE).log10()
    }
}
