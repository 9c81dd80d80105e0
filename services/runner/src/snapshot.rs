//! What a run shows while it runs and when it ends: plain data, filled by the runner.

use serde::{Deserialize, Serialize};
use topology::document::Fidelity;
use topology::figure::{Figures, Listing};

use crate::earlier;
use crate::verdict::Verdict;

/// How a network stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Snapshot {
    pub topology: String,
    pub simulated_s: f64,
    /// Where the run ends by itself.
    pub target_s: Option<f64>,
    pub wall_s: f64,
    /// How far a paced run is behind wall time.
    pub lag_s: f64,
    pub seed: Option<u64>,
    pub links: Vec<LinkRow>,
    /// What links go by where there are several.
    #[serde(rename = "networkTime", skip_serializing_if = "Option::is_none")]
    pub network_time: Option<NetworkTimeRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stores: Vec<StoreRow>,
    /// What is older than what was done with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rolled_back: Vec<RolledBackRow>,
    /// What goes wrong on purpose.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultRow>,
    /// Latest events, oldest first; kept short by whoever fills it.
    #[serde(skip)]
    pub events: Vec<Event>,
}

impl Snapshot {
    /// Key flows on every link.
    pub fn ready(&self) -> bool {
        !self.links.is_empty() && self.links.iter().all(|link| link.ready)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    #[default]
    Connecting,
    Acquiring,
    Locked,
    AuthenticationExhausted,
    /// A volume of one of the two ends was put back.
    RolledBack,
    /// The two ends speak different versions.
    PeerVersion,
    /// The authentication reserves of the two ends seem not to fit together.
    ReservesDiffer,
    Ended,
}

impl LinkState {
    /// What somebody has to do before this link makes key again; nothing where waiting is enough.
    pub fn way_out(self) -> Option<&'static str> {
        match self {
            Self::AuthenticationExhausted => Some("both ends need a fresh secret: `qkdnet rekey`"),
            Self::RolledBack => Some("void what may have been used: `qkdnet restore`"),
            Self::PeerVersion => Some("bring both ends to one version"),
            Self::ReservesDiffer => Some(
                "both ends need the same fresh secret: `qkdnet rekey`, or `qkdnet restore` where data were put back",
            ),
            Self::Connecting | Self::Acquiring | Self::Locked | Self::Ended => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Acquiring => "acquiring",
            Self::Locked => "locked",
            Self::AuthenticationExhausted => "no-auth-key",
            Self::RolledBack => "rolled-back",
            Self::PeerVersion => "peer-version",
            Self::ReservesDiffer => "reserves-differ",
            Self::Ended => "ended",
        }
    }
}

/// A store whose volume was put back. A key store or a reserve does nothing until somebody decides; a relay goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RolledBackRow {
    pub site: String,
    /// `key store`, `relay`, or `authentication reserve of LINK`.
    pub store: String,
    /// Since when it is known, as RFC 3339 has it.
    pub since: String,
    /// What shows it, and what to do.
    pub message: String,
}

impl RolledBackRow {
    /// Which store it is, whoever says so.
    pub fn is_same_store(&self, other: &Self) -> bool {
        (&self.site, &self.store) == (&other.site, &other.store)
    }
}

impl std::fmt::Display for RolledBackRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} was rolled back (since {}): {}", self.store, self.site, self.since, self.message)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoopState {
    #[default]
    Off,
    /// Moving towards its target.
    Seeking,
    Holding,
    /// At the end of its range.
    Limited,
}

impl LoopState {
    fn letter(self) -> char {
        match self {
            Self::Off => '-',
            Self::Seeking => '~',
            Self::Holding => '=',
            Self::Limited => '!',
        }
    }
}

/// The three control loops of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Loops {
    pub polarisation: LoopState,
    pub phase: LoopState,
    pub pump: LoopState,
}

impl std::fmt::Display for Loops {
    /// One letter and one sign each: polarisation, phase (`f`), pump (`u`).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p{} f{} u{}", self.polarisation.letter(), self.phase.letter(), self.pump.letter())
    }
}

/// One link. What has not been measured yet is not among its figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LinkRow {
    pub name: String,
    /// How much of its light is simulated.
    pub fidelity: Fidelity,
    pub state: LinkState,
    /// Locked and the first block is stored.
    pub ready: bool,
    /// Share of the acquisition window that has been gathered, while acquiring.
    pub acquired: Option<f64>,
    pub loss_db: f64,
    pub loops: Loops,
    pub blocks: u64,
    pub blocks_voided: u64,
    pub blocks_aborted: u64,
    /// Key bits stored so far.
    pub key_bits: u64,
    /// Key bits that could be taken now.
    pub pool_bits: u64,
    pub reserve_tags: u64,
    /// As they stand now.
    #[serde(flatten, serialize_with = "earlier::of_row")]
    pub figures: Figures,
    /// Which of them the link shows.
    #[serde(skip)]
    pub listing: &'static Listing,
}

/// The one time of a network: that of the slowest link that has light.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkTimeRow {
    /// Simulated.
    pub s: f64,
    /// How far links may be ahead of it.
    pub skew_s: f64,
    /// Whether anybody keeps it.
    pub pacer: PacerState,
    /// As the pacer has heard of them; empty while nobody keeps the time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<PacedLinkRow>,
}

/// A link's place in the network's time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PacedLinkRow {
    pub link: String,
    pub state: PaceState,
    /// Where its next epoch begins, while it has light.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PaceState {
    /// Its source is not there.
    #[default]
    Away,
    /// No session, or the end of its run.
    Idle,
    /// Begins once the other links are there.
    Joining,
    Emitting,
    /// As far ahead of the slowest one as it may be.
    Waiting,
    /// The others wait for it: it has not come yet, or has stopped in a run with a seed.
    Expected,
    /// It was waited for in vain: the others go on without it.
    Missing,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PacerState {
    Running,
    /// Light goes on for as long as links may be apart, and then waits.
    #[default]
    Away,
}

impl NetworkTimeRow {
    /// Whether something about it is not as it should be.
    pub fn wants_a_word(&self) -> bool {
        let waited_for = |link: &PacedLinkRow| matches!(link.state, PaceState::Expected | PaceState::Missing);
        self.pacer == PacerState::Away || self.links.iter().any(waited_for)
    }
}

impl std::fmt::Display for NetworkTimeRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "network time {:.1} s", self.s)?;
        if self.pacer == PacerState::Away {
            write!(f, " stands: the pacer is away, and light waits {} s ahead", self.skew_s)?;
        }
        for (state, words) in [(PaceState::Expected, "waits for"), (PaceState::Missing, "goes on without")] {
            let mut links = self.links.iter().filter(|link| link.state == state).map(|link| link.link.as_str());
            if let Some(first) = links.next() {
                let more = match links.count() {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                write!(f, ", {words} {first}{more}")?;
            }
        }
        Ok(())
    }
}

/// The key store of one site.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StoreRow {
    pub site: String,
    pub pools: Vec<PoolRow>,
    /// Keys handed to masters and to slaves.
    pub keys_supplied: u64,
    pub keys_fetched: u64,
}

/// Key that a site shares with another one.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PoolRow {
    pub peer: String,
    /// The two sites share no link.
    pub relayed: bool,
    pub connected: bool,
    /// No key of it is handed out: a store of one of the two sites was put back.
    pub rolled_back: bool,
    /// What the peer's key store says of its version, where it is another one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub peer_version: String,
    pub stored_bits: u64,
    pub confirmed_bits: u64,
    /// Of these, what was never taken and is gone: too old, or the oldest of a full pool.
    #[serde(skip_serializing_if = "is_zero")]
    pub expired_bits: u64,
    /// The pool is full: its links wait with blocks of this many bits.
    #[serde(skip_serializing_if = "is_zero")]
    pub waiting_bits: u64,
}

fn is_zero(bits: &u64) -> bool {
    *bits == 0
}

/// A fault that was brought into the network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FaultRow {
    pub id: String,
    pub what: String,
    /// Otherwise it is still to begin.
    pub active: bool,
    /// Services that suffer it.
    pub services: Vec<String>,
}

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Event {
    pub simulated_s: f64,
    pub link: String,
    pub site: String,
    /// Short machine-readable name, such as `locked` or `round-voided`.
    pub name: String,
    pub message: String,
    /// With `block-stored` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<BlockFigures>,
}

/// What a stored block is made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BlockFigures {
    pub number: u64,
    pub key_bits: u64,
    #[serde(flatten, serialize_with = "earlier::of_block")]
    pub figures: Figures,
}

/// The last object of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    pub simulated_s: f64,
    pub wall_s: f64,
    pub seed: Option<u64>,
    /// Where the links' one time has come to, where there are several.
    #[serde(rename = "networkTime", skip_serializing_if = "Option::is_none")]
    pub network_time: Option<NetworkTimeRow>,
    pub links: Vec<LinkSummary>,
    /// What took the place of light.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recordings: Vec<RecordingRow>,
    /// Whether all went well, and why not.
    pub verdict: Verdict,
    /// What was put back, and stayed so to the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rolled_back: Vec<RolledBackRow>,
}

/// A recording that was replayed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RecordingRow {
    pub site: String,
    pub file: String,
    pub format: String,
    pub sha256: String,
    pub clicks: u64,
    pub lasts_s: f64,
    /// Of that, what the other end's recording covers.
    pub used_s: f64,
    /// Damaged entries that were left out, and where the first of them stands.
    pub skipped: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped_first_byte: Option<u64>,
    /// What else there is to say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// A link over the whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LinkSummary {
    pub name: String,
    /// How much of its light was simulated.
    pub fidelity: Fidelity,
    pub ready: bool,
    pub blocks: u64,
    pub blocks_voided: u64,
    pub blocks_aborted: u64,
    pub key_bits: u64,
    pub clock_residual_p99_ps: Option<f64>,
    /// Both ends hold the same key, as far as both have decided.
    pub keys_equal: bool,
    /// Blocks that one end counts already and the other one settles at the next start.
    pub blocks_undecided: u64,
    /// Over all blocks that counted, or over all seconds in which the clock was known.
    #[serde(flatten, serialize_with = "earlier::of_summary")]
    pub figures: Figures,
    #[serde(skip)]
    pub listing: &'static Listing,
}
