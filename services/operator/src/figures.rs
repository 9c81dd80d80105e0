//! What services said, as rows for people: rounded, so that a row changes when there is something to say.

use proto::detector::v1::{LinkState, ModuleStatus};
use proto::kms::v1::GetStatusResponse;
use topology::figure::{Figure, Figures, Listing};
use topology::plan::PlannedLink;

use crate::observe::Observed;
use crate::resource::{FigureStatus, LinkStatus};

/// How one link stands.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkFigures {
    pub row: LinkStatus,
    pub state: State,
    /// Locked, and its first block is stored.
    pub flowing: bool,
    pub key_rate_bps: f64,
    /// Where blocks take long and none is stored yet.
    pub first_block: Option<FirstBlock>,
}

/// When the first block is expected, in seconds of simulated time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FirstBlock {
    pub at_s: f64,
    pub left_s: f64,
}

impl FirstBlock {
    /// What is said behind the state of the link. Tenths of hours: it is said again when it changes.
    pub fn sentence(self, pace: Option<f64>) -> String {
        let hours = |seconds: f64| format!("{:.1} h", seconds / 3600.0);
        let wall = pace.filter(|pace| *pace > 0.0).map(|pace| format!(", {} from now", hours(self.left_s / pace)));
        format!(" (its first is expected at {} of simulated time{})", hours(self.at_s), wall.unwrap_or_default())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A module of the link does not answer.
    Unreachable,
    Connecting,
    Acquiring,
    /// The clock is recovered, and no block is stored yet or again.
    Locked,
    Flowing,
    AuthenticationExhausted,
    /// A volume of one of the two ends was put back.
    RolledBack,
    /// The two ends speak different versions.
    PeerVersion,
    /// The authentication reserves of the two ends seem not to fit together.
    ReservesDiffer,
    Ended,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Connecting => "connecting",
            Self::Acquiring => "acquiring",
            Self::Locked => "locked",
            Self::Flowing => "flowing",
            Self::AuthenticationExhausted => "authentication-exhausted",
            Self::RolledBack => "rolled-back",
            Self::PeerVersion => "peer-version",
            Self::ReservesDiffer => "reserves-differ",
            Self::Ended => "ended",
        }
    }

    /// The reason of the condition, if a link in this state is why key does not flow.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unreachable => "LinkUnreachable",
            Self::Connecting => "LinkConnecting",
            Self::Acquiring => "LinkAcquiring",
            Self::Locked => "FirstBlockPending",
            Self::Flowing => "KeyFlows",
            Self::AuthenticationExhausted => "AuthenticationExhausted",
            Self::RolledBack => "RolledBack",
            Self::PeerVersion => "PeerVersion",
            Self::ReservesDiffer => "ReservesDiffer",
            Self::Ended => "RunEnded",
        }
    }

    pub fn sentence(self) -> &'static str {
        match self {
            Self::Unreachable => "does not answer",
            Self::Connecting => "waits for its other end",
            Self::Acquiring => "recovers the clock",
            Self::Locked => "is locked and has not stored a block yet",
            Self::Flowing => "makes key",
            Self::AuthenticationExhausted => "has no authentication key left; both ends need a fresh secret",
            Self::RolledBack => {
                "has an end whose volume was put back; void what may have been used with `qkdnet restore --topology`"
            }
            Self::PeerVersion => "has ends of different versions; bring both to one",
            Self::ReservesDiffer => {
                "has ends whose authentication reserves do not fit together; both need the same fresh secret"
            }
            Self::Ended => "has ended its run",
        }
    }
}

/// The rows of a topology's links, in their order.
pub fn links(planned: &[PlannedLink], observed: &Observed) -> Vec<LinkFigures> {
    planned.iter().map(|link| link_figures(link, observed)).collect()
}

fn link_figures(link: &PlannedLink, observed: &Observed) -> LinkFigures {
    let module = |site: &str| observed.modules.get(&(link.name.clone(), site.to_owned())).and_then(Option::as_ref);
    let ends = link.sites().map(module);
    let corrector = ends[link.corrector()];
    let state = state(ends, corrector);
    let stored = corrector.is_some_and(|status| status.blocks > 0);
    // What a run has come to when it ends stays.
    let flowing = state == State::Flowing || (state == State::Ended && stored);
    let measured = corrector.filter(|_| flowing).map(shell::figures::of_module).unwrap_or_default();
    let rate_bps = measured.value(Figure::SecretKeyRate).filter(|rate_bps| *rate_bps > 0.0);
    let row_figures = row_figures(link.listing(), &measured);
    let earlier = |figure: Figure| {
        let known = row_figures.iter().find(|row| row.name == figure.name());
        known.map(|row| row.value.clone()).unwrap_or_default()
    };
    let row = LinkStatus {
        name: link.name.clone(),
        state: state.name().to_owned(),
        qber_z: earlier(Figure::QberZ),
        qber_x: earlier(Figure::QberX),
        figures: row_figures,
        key_rate: rate_bps.map(|rate_bps| rounded(rate_bps, "bit/s")).unwrap_or_default(),
        pool: pool(link, observed).map(|bits| rounded(bits as f64, "bit")).unwrap_or_default(),
        blocks: corrector.map_or(0, |status| status.blocks),
    };
    let first_block = corrector.filter(|_| !flowing).and_then(|status| {
        let at_s = shell::figures::of_module(status).value(Figure::FirstBlock)?;
        Some(FirstBlock { at_s, left_s: (at_s - status.simulated_s).max(0.0) })
    });
    LinkFigures { row, state, flowing, key_rate_bps: rate_bps.unwrap_or(0.0), first_block }
}

/// Those that say most of the kind of link. What was not measured has no row.
fn row_figures(listing: &Listing, measured: &Figures) -> Vec<FigureStatus> {
    let row = |figure: &Figure| {
        let value = figure.quantity(Some(measured.value(*figure)?));
        Some(FigureStatus { name: figure.name().to_owned(), value })
    };
    listing.brief.iter().filter_map(row).collect()
}

fn state(ends: [Option<&ModuleStatus>; 2], corrector: Option<&ModuleStatus>) -> State {
    let ([Some(first), Some(second)], Some(corrector)) = (ends, corrector) else { return State::Unreachable };
    let either = |state: LinkState| first.state() == state || second.state() == state;
    let lasting = [
        (LinkState::RolledBack, State::RolledBack),
        (LinkState::PeerVersion, State::PeerVersion),
        (LinkState::AuthenticationExhausted, State::AuthenticationExhausted),
        (LinkState::ReservesDiffer, State::ReservesDiffer),
    ];
    if let Some((_, state)) = lasting.into_iter().find(|(wire, _)| either(*wire)) {
        return state;
    }
    // The other end notices a lock only by the bits that come back.
    match corrector.state() {
        LinkState::Locked if corrector.blocks > 0 => State::Flowing,
        LinkState::Locked => State::Locked,
        LinkState::Ended => State::Ended,
        LinkState::Acquiring => State::Acquiring,
        _ if either(LinkState::Ended) => State::Ended,
        _ => State::Connecting,
    }
}

/// Key that both ends hold and can hand out.
fn pool(link: &PlannedLink, observed: &Observed) -> Option<u64> {
    let of = |site: &str, peer: &str| stored(observed.stores.get(site)?.as_ref()?, peer);
    let [a, b] = link.sites();
    Some(of(a, b)?.min(of(b, a)?))
}

fn stored(status: &GetStatusResponse, peer: &str) -> Option<u64> {
    let pool = status.pools.iter().find(|pool| pool.site == peer)?;
    Some(pool.unassigned_bits + pool.uses.iter().map(|counted| counted.left_bits).sum::<u64>())
}

/// Two digits and a unit: `7.1 kbit/s`.
pub fn rounded(value: f64, unit: &str) -> String {
    if !value.is_finite() || value < 0.5 {
        return format!("0 {unit}");
    }
    let digits = 10f64.powi(value.log10().floor() as i32 - 1);
    let value = if digits >= 1.0 { (value / digits).round() * digits } else { value.round() };
    let (scaled, prefix) = match value {
        value if value >= 1e9 => (value / 1e9, "G"),
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e3 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let text = if scaled < 10.0 && !prefix.is_empty() { format!("{scaled:.1}") } else { format!("{scaled:.0}") };
    format!("{text} {prefix}{unit}")
}

#[cfg(test)]
mod tests {
    use super::rounded;

    #[test]
    fn figures_have_two_digits_and_a_unit() {
        let cases = [(7184.0, "7.2 kbit/s"), (175.3, "180 bit/s"), (142_440.0, "140 kbit/s"), (0.1, "0 bit/s")];
        for (value, text) in cases {
            assert_eq!(rounded(value, "bit/s"), text);
        }
        assert_eq!((rounded(9_960.0, "bit"), rounded(3.2e6, "bit")), ("10 kbit".to_owned(), "3.2 Mbit".to_owned()));
    }
}
