//! Elements to passes: when Xinglong sees Micius in a day.

use orbits::{Orbit, Station, TwoLineElements, Utc, passes};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let elements = TwoLineElements::parse(
        "1 41731U 16051A   16353.90152003  .00000364  00000-0  17957-4 0  9993",
        "2 41731  97.3699 267.4500 0013200 178.5836 246.0824 15.23915303 19063",
    )?;
    let (orbit, station) = (Orbit::Elements(elements), Station::new(40.3958, 117.5775, 0.9));
    let start: Utc = "2016-12-19T00:00:00Z".parse()?;
    for pass in passes(&orbit, &station, 10.0, start, start.plus_s(86_400.0))? {
        let (at, look) = pass.culmination;
        println!("{at}: {:.1} deg at {:.1} km, {:.0} s", look.elevation_deg, look.range_km, pass.duration_s());
    }
    Ok(())
}
