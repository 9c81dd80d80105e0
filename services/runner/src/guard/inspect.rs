//! Whether this build may be looked into. A file of its own, of the standard library alone: a test compiles it as the
//! shipped program is compiled, and as the tests are.

/// What the suite sets to search the memory of services for key, and who debugs one.
const VARIABLE: &str = "QKDNET_INSPECT";

/// Never in a build without debug assertions, which what is shipped has not.
pub fn allowed() -> bool {
    cfg!(debug_assertions) && std::env::var_os(VARIABLE).is_some_and(|value| value == "1")
}
