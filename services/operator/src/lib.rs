//! Networks on Kubernetes: an operator that makes the pods of each Topology, keeps them true to it, and says how they
//! are; and the same objects as text.
//!
//! One round for one topology is a pipeline, a module each:
//!
//! * [`validate`]: the object to a topology, with the words of `qkdnet validate`; [`fixed`]: what can never change.
//! * `topology::plan`: to services. [`layout`]: services to pods, containers and ports. [`material`]: what is secret.
//!   [`placement`]: what an end that lost its volume needs.
//! * [`build`]: pure, to Kubernetes objects.
//! * [`apply`]: into the cluster; [`compare`] finds what need not be written.
//! * [`restore`]: stores start over, on request.
//! * [`tell`]: what running services are told instead of being restarted.
//! * [`anchors`]: what services' stores count, kept where it is not put back with their volumes.
//! * [`pods`], [`observe`], [`figures`]: what keeps pods from running, what services say, rows for people.
//! * [`status`]: pure, to conditions and rows.
//!
//! [`reconcile`] strings them together, [`mod@run`] is the process, [`crd`] the definition, [`render`] the text.

pub mod anchors;
pub mod apply;
pub mod build;
pub mod compare;
pub mod crd;
pub mod events;
pub mod figures;
pub mod fixed;
pub mod layout;
pub mod material;
pub mod metrics;
pub mod monitor;
pub mod names;
pub mod observe;
pub mod placement;
pub mod pods;
pub mod reconcile;
pub mod render;
pub mod resource;
pub mod restore;
pub mod run;
pub mod settings;
pub mod status;
pub mod tell;
pub mod validate;

pub use run::{Options, run};
pub use settings::Settings;
