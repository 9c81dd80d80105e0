//! `qkdnet schema`: what editors need to complete and check topology files.

use runner::Failure;

use super::print;

pub fn run() -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(&topology::schema()).map_err(|error| Failure::failed(error.to_string()))?;
    print(&format!("{text}\n"))
}
