mod damage;
mod formats;
mod frames;
mod sessions;
mod surveys;
mod units;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::receiver::Frame;
use crate::tag::{ROLLOVER, UNITS_MASK, tag};

/// One more than the largest count of an `a1` word.
const WRAP: u64 = UNITS_MASK + 1;

fn frame(number: u64, tags: &[(u64, u32)]) -> Frame {
    Frame { number, tags: tags.iter().map(|&(units, port)| tag(units, port)).collect() }
}

/// The word of a detector at a count of 1/256 ns.
fn word(count: u64, port: u32) -> u64 {
    (count & UNITS_MASK) << 10 | 1 << port
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A recording of `count` clicks, about 1 us apart, from `first` on.
fn recording(first: u64, count: u64) -> Vec<u64> {
    light(1, first, count)
}

/// As [`recording`], of other light for each `seed`.
fn light(seed: u64, first: u64, count: u64) -> Vec<u64> {
    let mut chance = StdRng::seed_from_u64(seed);
    let mut time = first;
    let click = |index: u64| {
        time += chance.random_range(100_000..400_000);
        word(time, (index % 4) as u32)
    };
    (0..count).map(click).collect()
}

fn read_all(bytes: &[u8], format: Format) -> (Vec<Click>, Damage, Option<TagFileError>) {
    let mut reader = match TagReader::new(bytes, format) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Damage::default(), Some(error)),
    };
    let mut clicks = Vec::new();
    loop {
        match reader.read(&mut clicks) {
            Ok(0) => return (clicks, reader.damage(), None),
            Ok(_) => {}
            Err(error) => return (clicks, reader.damage(), Some(error)),
        }
    }
}

fn times(clicks: &[Click]) -> Vec<u128> {
    clicks.iter().map(|click| click.time).collect()
}

fn written(frames: &[Frame], format: Format) -> Vec<u8> {
    let mut writer = TagWriter::new(Vec::new(), format).unwrap();
    for frame in frames {
        writer.write(frame).unwrap();
    }
    writer.finish().unwrap()
}
