//! What is on the disk once a call returns, and whole or absent after any crash.
//!
//! * [`files`]: small files that are replaced whole.
//! * [`log`]: files that grow by checked records, with one sync for all who wait for one.
//! * [`disk`]: where either writes, which a fault can fill.

pub mod disk;
pub mod files;
pub mod log;
