//! The transmitter of a prepared link: what each of its pulses is, and the module behind it (the crate `module`).
//!
//! A transmitter chooses the state and the intensity of every pulse by a keyed stream that is fresh for each session. The
//! source, which stands beside it and is its modulator, gets the key and makes the light; nobody else ever does. Here no
//! pulse is drawn: epoch by epoch the source says that it has sent them, and the module looks up those that the receiver
//! has detected.

mod choices;
mod playback;
mod pulses;
mod serve;

pub use playback::Playback;
pub use pulses::{Origin, Pulses};
pub use serve::{place, serve};
