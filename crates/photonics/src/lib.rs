//! Light, from its birth to a stamped click, and the formulae that predict it.
//!
//! ```text
//! nature  --photons-->  receiver  --frames of tags-->  modules (not here)
//!   ^ path, analyser                                      tagfile: the same tags on disk
//! ```
//!
//! Pure: no sockets, no clock of the machine, no global randomness. Everything random comes from counter-based
//! generators keyed by a role's subseed, the link and the epoch, and each draw has a label of its own ([`random`]); labels
//! are frozen, because keys at a seed depend on them.
//!
//! **Who calls what, in which order.** For each epoch, one after the other:
//!
//! 1. The end asks [`receiver::Instrument::analyser_state`] what light will meet there, and tells the source.
//! 2. The source calls `emit` of its kind of [`nature`] with the states of all ends of the link.
//! 3. The end gives the [`photons::Photons`] of the epoch to [`receiver::Instrument::detect`], which returns the frames that
//!    are complete. [`receiver::Instrument::start`] comes before the first epoch of a session.
//!
//! A prepared link differs in this: the session's [`nature::pulses::ChoiceKey`] goes to transmitter and source
//! ([`nature::pulses::Emitter::start`]), and where the receiver chooses its basis actively a key of its own to the source
//! and to [`receiver::Instrument::choose_bases`]; both before the session's first epoch. The transmitter reads what it has
//! sent from [`nature::pulses::Choices`] by the number of a pulse, which the receiver finds from the preamble. Clicks while
//! any detector is dead tell which detector clicked before: the receiver's half of sifting drops them, as long as it is
//! told ([`config::PreparedDetectors::dead_time_ps`]).
//!
//! **At the fidelity of counts** none of this happens photon by photon: [`nature::counts`] draws, slice by slice, how many sifted
//! bits there are and how many of them are wrong, and gives each end its own strings. What it draws by is what
//! [`expect`] says of the same instruments.
//!
//! **What is a function of what.** Photons: of configuration, the source's subseed, epoch, states, and of the photons that
//! crossed into the epoch; of a prepared link also of the session's keys and of the epoch that it began at. Frames: of
//! configuration, the receiver's subseed, the epoch that the session started at and all
//! photons since. Neither depends on when calls are made or on other links. A path and an interferometer's phase can be
//! had for any epoch; sources and receivers go on from epoch to epoch.
//!
//! **Who may know what.** True time and joint outcomes do not leave [`nature`] but as photons for one receiver; what leaves a
//! [`receiver`] is stamped by its own clock. A frame belongs to the instrument, not to a link: every module that is fed by
//! the receiver reads the same frame.

// No clock, file, socket, thread or randomness of the machine: clippy.toml lists them with reasons.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr))]

pub mod analyser;
pub mod config;
pub mod expect;
pub mod nature;
mod path;
pub mod photons;
pub mod random;
pub mod receiver;
pub mod tag;
pub mod tagfile;

pub use path::free_space;
