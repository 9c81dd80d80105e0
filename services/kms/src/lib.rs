//! The key management system of a site: stores what the site's links make and supplies applications with it.
//!
//! * [`etsi014`]: the front end for applications (SAEs), ETSI GS QKD 014, and a client of it.
//! * [`supply`]: what a front end asks of the key store, whichever standard it speaks.
//! * [`secret`]: key bytes that cannot be printed and do not outlive their use.

pub mod etsi014;
pub mod key_id;
pub mod secret;
pub mod supply;
