//! What a topology says about the protocol of a link, resolved to plain numbers.

use serde::{Deserialize, Serialize};

use crate::sifting::counts::Counts;
use crate::sifting::prepared::config::{Part, Prepared};

/// Which of the two ends of an entangled link a module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Publishes the time and basis of its clicks.
    Announcer,
    /// Recovers the peer's clock, finds coincidences, answers with indices.
    Matcher,
}

/// Which part an end has in post-processing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Holds the string that counts, and stores a block once the peer is known to have it.
    Reference,
    /// Corrects its string, closes rounds and decides which blocks count.
    Corrector,
}

impl Role {
    pub fn side(self) -> Side {
        match self {
            Self::Announcer => Side::Reference,
            Self::Matcher => Side::Corrector,
        }
    }
}

/// What one end of a link is told of its protocol; equal at both ends but for its part in sifting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkProtocol {
    pub post_processing: PostProcessing,
    pub sifting: Sifting,
}

/// What every link has, whatever its sifting protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostProcessing {
    pub framing: Framing,
    pub reconciliation: Reconciliation,
    pub security: Security,
    pub authentication: Authentication,
}

impl PostProcessing {
    /// How light is cut for sifting, whose rounds are the stretches of blocks.
    pub fn stretch(&self) -> Framing {
        let round_frames = self.framing.round_frames / self.authentication.stretches.max(1);
        Framing { round_frames: round_frames.max(1), ..self.framing }
    }
}

/// A round of fewer frames is a coarse one: reconciliation takes about a hundred steps.
const COARSE_FRAMES: u64 = 16;

/// How light is cut: into frames, and frames into the rounds that become blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Framing {
    /// Slice of local time that is announced at once.
    pub frame_ps: u64,
    /// Frames of a round, that is of a block.
    pub round_frames: u64,
}

impl Framing {
    /// Frames of 20 ms and rounds of a second, for examples, tests and benches.
    pub fn of_a_second() -> Self {
        Self { frame_ps: 20_000_000_000, round_frames: 50 }
    }

    pub fn frame_s(self) -> f64 {
        self.frame_ps as f64 * 1e-12
    }

    /// Whether a round has so few frames that reconciling one takes longer than several rounds of steps: then light
    /// waits for reconciliation, or ever more rounds would be in work at once.
    pub fn is_coarse(self) -> bool {
        self.round_frames < COARSE_FRAMES
    }

    pub fn round_s(self) -> f64 {
        self.round_frames as f64 * self.frame_s()
    }
}

/// How light becomes sifted bits: a variant for each protocol. [`half`](crate::sifting::half) makes the end's half of
/// it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "protocol", rename_all = "kebab-case")]
pub enum Sifting {
    /// BBM92 with energy-time entangled pairs.
    Entangled(Entangled),
    /// BB84 with pulses that a transmitter prepares.
    Prepared(Prepared),
    /// Any of these, its light drawn as counts.
    Counts(Counts),
}

impl Sifting {
    /// What a link of entangled pairs has.
    pub fn entangled(&self) -> Option<&Entangled> {
        match self {
            Self::Entangled(entangled) => Some(entangled),
            Self::Prepared(_) | Self::Counts(_) => None,
        }
    }

    /// What a prepared link has.
    pub fn prepared(&self) -> Option<&Prepared> {
        match self {
            Self::Entangled(_) | Self::Counts(_) => None,
            Self::Prepared(prepared) => Some(prepared),
        }
    }
}

/// BBM92 with energy-time entangled pairs, at one end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entangled {
    pub role: Role,
    pub coincidence_window_ps: u64,
    /// Distance of the side peaks, equal to the analysers' delay.
    pub analyser_delay_ps: u64,
    /// Dead time of the slowest detector of the link: of two kept events closer than this the second is dropped.
    pub dead_time_ps: u64,
    pub acquisition: Acquisition,
    pub tracking_interval_ps: u64,
    pub loops: Loops,
}

impl LinkProtocol {
    /// Which part this end has in post-processing.
    pub fn side(&self) -> Side {
        match &self.sifting {
            Sifting::Entangled(entangled) => entangled.role.side(),
            Sifting::Prepared(prepared) => prepared.part.side(),
            Sifting::Counts(counts) => counts.side,
        }
    }

    /// Name of this end's part in sifting, for people.
    pub fn part(&self) -> &'static str {
        match &self.sifting {
            Sifting::Entangled(Entangled { role: Role::Announcer, .. }) => "announcer",
            Sifting::Entangled(Entangled { role: Role::Matcher, .. }) => "matcher",
            Sifting::Prepared(Prepared { part: Part::Transmitter, .. }) => "transmitter",
            Sifting::Prepared(Prepared { part: Part::Receiver, .. }) => "receiver",
            Sifting::Counts(Counts { side: Side::Reference, .. }) => "reference",
            Sifting::Counts(Counts { side: Side::Corrector, .. }) => "corrector",
        }
    }

    /// Whether this end tells the source its power. One end alone does: two that say different things would undo each
    /// other.
    pub fn sets_pump(&self) -> bool {
        match &self.sifting {
            Sifting::Entangled(entangled) => entangled.role == Role::Matcher,
            Sifting::Prepared(prepared) => prepared.part == Part::Transmitter,
            Sifting::Counts(counts) => counts.side == Side::Corrector && self.is_pumped(),
        }
    }

    /// Whether its light is one whose power a loop may set, that of pairs.
    pub fn is_pumped(&self) -> bool {
        self.post_processing.security.emission.is_pairs()
    }

    /// Whether the light is drawn as counts, so that there are no clicks.
    pub fn is_counted(&self) -> bool {
        matches!(self.sifting, Sifting::Counts(_))
    }

    /// Whether this end has a receiver, whose clicks are counted; a transmitter has none.
    pub fn has_receiver(&self) -> bool {
        match &self.sifting {
            Sifting::Entangled(_) => true,
            Sifting::Prepared(prepared) => prepared.part == Part::Receiver,
            Sifting::Counts(counts) => counts.side == Side::Corrector || self.is_pumped(),
        }
    }

    /// The same, without what differs between the two ends of a link.
    pub fn in_common(&self) -> Self {
        let mut common = self.clone();
        match &mut common.sifting {
            Sifting::Entangled(entangled) => entangled.role = Role::Announcer,
            Sifting::Prepared(prepared) => prepared.part = Part::Transmitter,
            Sifting::Counts(counts) => counts.side = Side::Reference,
        }
        common
    }

    /// A BBM92 link with usual instruments and rounds of a second, for examples, tests and benches.
    pub fn bbm92(role: Role) -> Self {
        Self {
            post_processing: PostProcessing {
                framing: Framing::of_a_second(),
                reconciliation: Reconciliation { frame_bits: 1 << 16, initial_qber: 0.05 },
                security: Security {
                    bound: Bound::Asymptotic,
                    epsilon_secrecy: 1e-10,
                    epsilon_correctness: 1e-15,
                    tolerated_qber: 0.11,
                    emission: Emission::Pairs,
                },
                authentication: Authentication::new(64),
            },
            sifting: Sifting::Entangled(Entangled::usual(role)),
        }
    }
}

impl Entangled {
    /// With usual instruments, for examples, tests and benches.
    pub fn usual(role: Role) -> Self {
        Self {
            role,
            coincidence_window_ps: 120,
            analyser_delay_ps: 400,
            dead_time_ps: 30_000,
            acquisition: Acquisition {
                search_ps: 10_000_000_000,
                frequency_search: 2e-7,
                window_ps: 50_000_000_000,
                correlator: true,
            },
            tracking_interval_ps: 500_000_000_000,
            loops: Loops {
                polarisation: true,
                phase: true,
                pump: true,
                target_qber_z: 0.043,
                phase_dither_rad: 0.05,
                pump_max: 2.0,
            },
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acquisition {
    /// Largest difference of the two clocks that is searched, either way.
    pub search_ps: u64,
    /// Largest relative frequency difference of the two clocks.
    pub frequency_search: f64,
    /// Stretch of announcements that is correlated.
    pub window_ps: u64,
    /// False only to show what happens without a correlator.
    pub correlator: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reconciliation {
    /// Longest Cascade frame.
    pub frame_bits: u32,
    /// Error rate assumed before the first block has been measured.
    pub initial_qber: f64,
}

/// Which proof says how long a key may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// The limit of long keys, as papers quote it: `n (1 - h(Ex)) - leak` of pairs, Ma et al., PRA 72, 012326 (2005)
    /// with decoys, Waks et al., PRA 66, 042315 (2002) with single photons.
    Asymptotic,
    /// The finite bound that is recommended for the light of the link: Tomamichel et al., Nat. Commun. 3, 634 (2012)
    /// for pairs, [`Lim2014`](Self::Lim2014) with two decoys, [`Wiesemann2024`](Self::Wiesemann2024) with one, Morrison
    /// et al., Nat. Commun. 14, 3573 (2023) for single photons, and for twin fields a simplified composition, which is
    /// no proof.
    Finite,
    /// Two decoys: Lim et al., PRA 89, 022307 (2014).
    Lim2014,
    /// One decoy: Rusca et al., APL 112, 171104 (2018).
    Rusca2018,
    /// One decoy, the same estimates under the constants of a newer proof: Wiesemann et al., arXiv:2405.16578.
    Wiesemann2024,
}

impl Bound {
    /// As it stands in configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Asymptotic => "asymptotic",
            Self::Finite => "finite",
            Self::Lim2014 => "lim2014",
            Self::Rusca2018 => "rusca2018",
            Self::Wiesemann2024 => "wiesemann2024",
        }
    }

    /// Whether it holds for this light.
    pub fn fits(self, emission: &Emission) -> bool {
        match self {
            Self::Asymptotic | Self::Finite => true,
            Self::Lim2014 => matches!(emission, Emission::TwoDecoys(_)),
            Self::Rusca2018 | Self::Wiesemann2024 => matches!(emission, Emission::OneDecoy(_)),
        }
    }
}

/// Largest number of intensities that a protocol here has.
pub const INTENSITIES: usize = 3;

/// Pulses of one intensity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intensity {
    /// Mean number of photons of a pulse as it leaves the transmitter.
    pub mean_photons: f64,
    /// Share of the pulses, in either basis.
    pub probability: f64,
}

/// A source of single photons, as its maker measured it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinglePhotons {
    /// Mean number of photons of a pulse as it leaves the transmitter: at most.
    pub mean_photons: f64,
    /// Second-order correlation at zero delay: an upper confidence bound of it.
    pub g2: f64,
    /// Probability of the key basis at the transmitter and at the receiver.
    pub key_basis_probability: [f64; 2],
}

/// What a proof takes for granted of the light of a link.
///
/// It is configuration and no evidence. Evidence is what both ends learned in public of an eavesdropper, part of it
/// from the peer; how bright its pulses are and how often it sends them is what a transmitter was characterised for,
/// trusted by the proof and equal at both ends by the topology. A peer that could state its own intensities would
/// choose its bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "light", content = "pulses", rename_all = "kebab-case")]
pub enum Emission {
    /// One pair for each bit of the key: there is nothing to assume.
    #[default]
    Pairs,
    /// Laser pulses of random phase: signal and decoy.
    OneDecoy([Intensity; 2]),
    /// The same with a third intensity, at or near the vacuum: signal, decoy, vacuum.
    TwoDecoys([Intensity; 3]),
    SinglePhotons(SinglePhotons),
    /// Laser pulses of random phase from both ends, which interfere at a station between them.
    TwinField([TwinFieldUser; 2]),
}

/// What one end of a twin-field link sends, as it leaves the transmitter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TwinFieldUser {
    /// Mean number of photons of a pulse that is sent in a window for key.
    pub signal: f64,
    /// Probability that one is sent there.
    pub sending_probability: f64,
    /// Mean numbers of photons of the decoys: weak, strong.
    pub decoys: [f64; 2],
}

impl TwinFieldUser {
    /// Probability that it sends a pulse with one photon while its peer sends none.
    pub fn one_photon_alone(&self, peer: &Self) -> f64 {
        let alone = self.sending_probability * (1.0 - peer.sending_probability);
        alone * self.signal * libm::exp(-self.signal)
    }
}

impl Emission {
    pub fn is_pairs(&self) -> bool {
        matches!(self, Self::Pairs)
    }

    /// Mean number of photons of each kind of pulse as it leaves the transmitter, the brightest first; none of pairs, or
    /// where there are two transmitters.
    pub fn mean_photons(&self) -> Vec<f64> {
        match self {
            Self::SinglePhotons(source) => vec![source.mean_photons],
            light => light.intensities().iter().map(|intensity| intensity.mean_photons).collect(),
        }
    }

    /// Share of the pulses that each kind has, in the same order.
    pub fn probabilities(&self) -> Vec<f64> {
        match self {
            Self::SinglePhotons(_) => vec![1.0],
            light => light.intensities().iter().map(|intensity| intensity.probability).collect(),
        }
    }

    /// Whether pulses differ as a transmitter says: numbers that fall, the first above 0. Pairs are no pulses.
    pub fn is_ordered(&self) -> bool {
        let means = self.mean_photons();
        means.first().is_some_and(|brightest| *brightest > 0.0)
            && means.iter().all(|mean| mean.is_finite() && *mean >= 0.0)
            && means.is_sorted_by(|brighter, dimmer| brighter > dimmer)
    }

    /// Whether a proof asks which intensity the errors of the key are of: with one decoy they bound what comes of the
    /// vacuum.
    pub fn needs_key_errors(&self) -> bool {
        matches!(self, Self::OneDecoy(_))
    }

    /// Of laser pulses, the brightest first.
    pub fn intensities(&self) -> &[Intensity] {
        match self {
            Self::Pairs | Self::SinglePhotons(_) | Self::TwinField(_) => &[],
            Self::OneDecoy(intensities) => intensities,
            Self::TwoDecoys(intensities) => intensities,
        }
    }
}

/// What "secret" means for a link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Security {
    pub bound: Bound,
    /// Secrecy and correctness parameters of one block.
    pub epsilon_secrecy: f64,
    pub epsilon_correctness: f64,
    /// Largest tolerated error rate in the check basis, of signal pulses where there are decoys; a block above it
    /// aborts.
    pub tolerated_qber: f64,
    #[serde(default, skip_serializing_if = "Emission::is_pairs")]
    pub emission: Emission,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authentication {
    /// Tags made under one hash key before it is renewed from the reserve.
    pub tags_per_hash_key: u64,
    /// Stretches that a block is sifted in, of equal length. A tag of either end, a *checkpoint*, closes each of them
    /// but the last: what is closed outlives the session.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub stretches: u64,
}

impl Authentication {
    /// Of blocks that are sifted at one go.
    pub fn new(tags_per_hash_key: u64) -> Self {
        Self { tags_per_hash_key, stretches: one() }
    }
}

fn one() -> u64 {
    1
}

// The form that serde asks for.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_one(number: &u64) -> bool {
    *number == one()
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loops {
    pub polarisation: bool,
    pub phase: bool,
    pub pump: bool,
    /// Set-point of the pump loop.
    pub target_qber_z: f64,
    /// Amplitude of the phase loop's dither.
    pub phase_dither_rad: f64,
    /// Highest pump set-point, relative to nominal.
    pub pump_max: f64,
}
