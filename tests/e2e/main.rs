//! On a real cluster, as the README says: chart, `kubectl apply`, keys in pods, edits, kills, removal.
//!
//! `make e2e` brings up a cluster, builds and loads the image, and runs this with `QKDNET_E2E=1`. The steps build on one
//! another and run in this order; each waits for conditions, never for time. `target/e2e.xml` is the report as JUnit.

mod cluster;
#[allow(dead_code)]
#[path = "../suite/documented.rs"]
mod documented;
mod harness;
mod steps;
mod topologies;

use harness::Suite;

fn main() {
    if std::env::var("QKDNET_E2E").as_deref() != Ok("1") {
        println!("SKIPPED: the tests on a cluster run where QKDNET_E2E=1 says so; see `make e2e`");
        return;
    }
    let mut suite = Suite::new(std::env::args().skip(1).collect());
    steps::install::run(&mut suite);
    steps::first_key::run(&mut suite);
    steps::identity::run(&mut suite);
    steps::applications::run(&mut suite);
    steps::policy::run(&mut suite);
    steps::commands::run(&mut suite);
    steps::refusals::run(&mut suite);
    steps::edits::run(&mut suite);
    steps::kills::run(&mut suite);
    steps::troubles::run(&mut suite);
    steps::restore::run(&mut suite);
    steps::render::run(&mut suite);
    steps::removal::run(&mut suite);
    steps::readme::run(&mut suite);
    suite.finish();
}
