//! What a recording holds, before any of it is used.

use std::collections::BTreeMap;
use std::io::Read;

use super::TagFileError;
use super::format::Format;
use super::mend::Damage;
use super::prints::Prints;
use super::read::TagReader;

/// Channels that a recording may have.
const CHANNELS_MAX: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Survey {
    pub format: Format,
    pub clicks: u64,
    /// Clicks of each channel.
    pub channels: BTreeMap<i32, u64>,
    /// Time of the first and the last click, in ticks.
    pub first: u128,
    pub last: u128,
    pub damage: Damage,
    /// Why the file was not read to its end.
    pub failure: Option<TagFileError>,
    pub prints: Prints,
}

/// Reads a whole recording.
pub fn survey<R: Read>(mut reader: TagReader<R>) -> Survey {
    let mut survey = Survey {
        format: reader.format(),
        clicks: 0,
        channels: BTreeMap::new(),
        first: 0,
        last: 0,
        damage: Damage::default(),
        failure: None,
        prints: Prints::new(),
    };
    let mut clicks = Vec::new();
    loop {
        clicks.clear();
        match reader.read(&mut clicks) {
            Ok(0) => break,
            Ok(_) => {}
            Err(failure) => {
                survey.failure = Some(failure);
                break;
            }
        }
        for click in &clicks {
            if survey.clicks == 0 {
                survey.first = click.time;
            }
            survey.clicks += 1;
            survey.last = click.time;
            survey.prints.take(click.time);
            *survey.channels.entry(click.channel).or_default() += 1;
        }
        if survey.channels.len() > CHANNELS_MAX {
            survey.failure = Some(TagFileError::TooManyChannels { offset: 0, limit: CHANNELS_MAX });
            break;
        }
    }
    survey.damage = reader.damage();
    survey
}
