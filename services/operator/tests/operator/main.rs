//! The operator without a cluster: objects from fixtures, the definition, and rounds against an API server in memory.

#![allow(clippy::unwrap_used)]

mod anchors;
mod api;
mod crd;
mod layouts;
mod objects;
mod policies;
mod reconcile;
mod refusals;
mod restores;
mod statuses;
mod support;
mod telling;
