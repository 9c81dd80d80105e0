//! Where a photon goes: probabilities of port and time slot, for each state and each basis of the receiver.

use super::choices::Choice;
use crate::analyser::AnalyserState;
use crate::config::{Basis, BasisChoice, Encoding, PreparedAnalyser, Transmitter};
use crate::path::probability;

/// Ways that a photon can leave an analyser by: four ports, or time slots of a time-bin analyser.
const CELLS_MAX: usize = 8;

/// A way out of the analyser.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cell {
    pub(super) port: u32,
    /// Time slots of a time-bin analyser are numbered by the separations that light lags behind.
    pub(super) slot: u8,
}

/// Where photons of one state go that are measured in one basis, or in either where the choice is passive.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcomes {
    cells: [Cell; CELLS_MAX],
    /// Upper ends of the cells' shares, out of 2^32. The last cell has what is left.
    ends: [u64; CELLS_MAX],
    len: usize,
    sum: f64,
}

impl Outcomes {
    fn none() -> Self {
        Self { cells: [Cell::default(); CELLS_MAX], ends: [1 << 32; CELLS_MAX], len: 0, sum: 0.0 }
    }

    fn add(&mut self, port: u32, slot: u8, share: f64) {
        if share > 0.0 && self.len < CELLS_MAX {
            self.sum += share;
            self.cells[self.len] = Cell { port, slot };
            self.ends[self.len] = libm::round(self.sum.min(1.0) * 4_294_967_296.0) as u64;
            self.len += 1;
        }
    }

    /// The cell of a photon by a random word.
    #[inline]
    pub(super) fn pick(&self, word: u32) -> Cell {
        let last = self.len.saturating_sub(1);
        // Without a branch: which port it is is anyone's guess.
        let place: usize = self.ends[..last].iter().map(|&end| usize::from(u64::from(word) >= end)).sum();
        self.cells[place]
    }
}

/// A state of the light as the receiver meets it: expectation values of Z and X, between -1 and 1.
#[derive(Clone, Copy)]
struct Bloch {
    z: f64,
    x: f64,
}

/// All that an epoch's photons can do, by state and basis of the receiver.
pub(super) struct Optics {
    encoding: Encoding,
    active: bool,
    z_probability: f64,
    preparation: [f64; 2],
    measurement: [f64; 2],
    outcomes: [[Outcomes; 2]; 4],
}

fn contrast(error: [f64; 2]) -> [f64; 2] {
    error.map(|error| 1.0 - 2.0 * probability(error))
}

impl Optics {
    pub(super) fn new(transmitter: &Transmitter, analyser: &PreparedAnalyser) -> Self {
        Self {
            encoding: analyser.encoding,
            active: analyser.basis_choice == BasisChoice::Active,
            z_probability: probability(analyser.z_probability),
            preparation: contrast(transmitter.intrinsic_error),
            measurement: contrast(analyser.error),
            outcomes: std::array::from_fn(|_| [Outcomes::none(), Outcomes::none()]),
        }
    }

    pub(super) fn z_probability(&self) -> f64 {
        self.z_probability
    }

    pub(super) fn is_active(&self) -> bool {
        self.active
    }

    /// Where a photon of this choice goes. The receiver's basis matters only where it is chosen actively.
    #[inline]
    pub(super) fn outcomes(&self, choice: Choice, measured: Basis) -> &Outcomes {
        &self.outcomes[choice.class() & 3][measured as usize]
    }

    /// Sets all to what holds in an epoch. `angles_rad` is what is left of the path's rotation of polarisation.
    pub(super) fn enter(&mut self, angles_rad: [f64; 2], states: [&AnalyserState; 2]) {
        let phase_rad = states[0].phase_rad + states[1].phase_rad;
        for state in 0..self.outcomes.len() {
            let (basis, sign) = (state >> 1, [1.0, -1.0][state & 1]);
            let prepared = sign * self.preparation[basis];
            let sent = if basis == 0 { Bloch { z: prepared, x: 0.0 } } else { Bloch { z: 0.0, x: prepared } };
            let light = self.arriving(sent, angles_rad, phase_rad);
            for measured in 0..2 {
                let share = [self.z_probability, 1.0 - self.z_probability];
                let mut outcomes = Outcomes::none();
                for basis in 0..2 {
                    let share = if !self.active {
                        share[basis]
                    } else if measured == basis {
                        1.0
                    } else {
                        0.0
                    };
                    self.measure(basis, light, share, phase_rad, &mut outcomes);
                }
                self.outcomes[state][measured] = outcomes;
            }
        }
    }

    /// What the path makes of a state.
    fn arriving(&self, sent: Bloch, angles_rad: [f64; 2], phase_rad: f64) -> Bloch {
        match self.encoding {
            // The first angle turns the plane of linear polarisation, the second one takes Z towards circular.
            Encoding::Polarisation => {
                let turned = rotated(sent, angles_rad[0]);
                Bloch { z: turned.z * libm::cos(angles_rad[1]), ..turned }
            }
            Encoding::Phase => rotated(sent, phase_rad),
            // The time of a pulse does not turn, and the interferometer reads the phase itself.
            Encoding::TimeBin => sent,
        }
    }

    /// Adds what a measurement in one basis, which `share` of the light goes to, does to it.
    fn measure(&self, basis: usize, light: Bloch, share: f64, phase_rad: f64, outcomes: &mut Outcomes) {
        let half = |expectation: f64| [0.5 * (1.0 + expectation), 0.5 * (1.0 - expectation)];
        let value = [light.z, light.x][basis] * self.measurement[basis];
        let ports = [0, 1].map(|bit| 2 * basis as u32 + bit);
        match (self.encoding, basis) {
            (Encoding::TimeBin, 0) => {
                let [early, late] = half(value);
                outcomes.add(ports[0], 0, share * early);
                outcomes.add(ports[0], 1, share * late);
            }
            (Encoding::TimeBin, _) => {
                // Half of either pulse takes the long way. Early light on it meets late light on the short one.
                let [early, late] = half(light.z);
                let middle = half(value * libm::cos(phase_rad));
                for (port, middle) in ports.into_iter().zip(middle) {
                    outcomes.add(port, 0, share * 0.25 * early);
                    outcomes.add(port, 1, share * 0.5 * middle);
                    outcomes.add(port, 2, share * 0.25 * late);
                }
            }
            _ => ports.into_iter().zip(half(value)).for_each(|(port, part)| outcomes.add(port, 0, share * part)),
        }
    }
}

fn rotated(state: Bloch, angle_rad: f64) -> Bloch {
    let (sine, cosine) = (libm::sin(angle_rad), libm::cos(angle_rad));
    Bloch { z: cosine * state.z - sine * state.x, x: sine * state.z + cosine * state.x }
}
