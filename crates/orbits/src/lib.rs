//! Where satellites are, when a ground station sees them, and how dark its sky is then.
//!
//! * An [`Orbit`] comes from two-line elements (SGP4), from a shape and its epoch ([`Kepler`], with the secular drifts that
//!   the Earth's flattening causes), or from recorded positions ([`Track`]). It says where the satellite is at a time
//!   ([`Utc`]), fixed to the Earth.
//! * A [`Station`] is a place on the WGS 84 ellipsoid. [`Station::look`] gives elevation, azimuth and range.
//! * [`passes`] are the times in which a station sees a satellite above an elevation: rise, culmination, set. They are
//!   roots and maxima, found to a millisecond.
//! * [`sky`] has the elevations of Sun and Moon, and how much of the Moon is lit.
//!
//! Nothing here reads a clock or a file: equal arguments give equal results. (Sines come from `libm`, but for those of SGP4,
//! whose last digits are the machine's: who draws by what follows from a position rounds it first.) Who reads a document calls the constructors, which refuse what cannot be an orbit and say why; after that only
//! [`Orbit::position`] can fail (elements that are so old that the model breaks down, a time outside of a track).
//!
//! What is left out: polar motion and UT1 - UTC (below 0.5 km), refraction (0.1 degrees at 10 degrees of elevation), and
//! orbits that take longer than 225 minutes.

// No clock, file, socket, thread or randomness of the machine: clippy.toml lists them with reasons.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr))]

mod elements;
mod frames;
mod kepler;
mod orbit;
mod passes;
pub mod sky;
mod station;
mod time;
mod track;

pub use elements::{ElementsError, Line, TwoLineElements};
pub use frames::Vector;
pub use kepler::{Kepler, KeplerError};
pub use orbit::{Orbit, PositionError};
pub use passes::{Pass, highest, passes};
pub use station::{Look, Station};
pub use time::{TimeError, Utc};
pub use track::{Sample, Track, TrackError};
