//! The detector node: an instrument that turns photons into tags of its own clock, or a recording of such tags, and what
//! that gives to the module behind it (the crate `module`). Only the instrument knows simulated time; the module sees
//! frames of tags.

mod clicks;
mod instrument;
mod playback;
mod record;
mod serve;

pub use clicks::{Clicks, Origin};
pub use playback::{Beginning, Bytes, Playback};
pub use record::Recorder;
pub use serve::{place, serve};
