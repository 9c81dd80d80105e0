//! From a document to what has to be started: `plan_of_a_file FILE`. Problems are printed with line and column.

use std::error::Error;

use topology::plan::{RunOptions, plan};

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).ok_or("give a topology file")?;
    let document = match topology::parse(&file, &std::fs::read(&file)?) {
        Ok(document) => document,
        Err(problems) => return Err(problems.to_string().into()),
    };
    let plan = plan(&document.topology, &RunOptions { seed: Some(1), ..RunOptions::default() });
    for service in &plan.services {
        println!(
            "{} {} at {}, calls {}",
            service.config.kind(),
            service.name,
            service.site,
            service.connects_to.join(", ")
        );
    }
    Ok(())
}
