//! What a hostile line makes of messages.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// A message that was damaged, cut, lengthened or said twice, or another one than was due.
pub fn mutated(messages: &[Vec<u8>], honest: usize, rng: &mut ChaCha8Rng) -> Vec<u8> {
    let pick = |rng: &mut ChaCha8Rng, below: usize| rng.next_u32() as usize % below.max(1);
    let mut bytes = messages[honest].clone();
    match pick(rng, 5) {
        0 => {
            for _ in 0..=pick(rng, 4) {
                let at = pick(rng, 8 * bytes.len());
                if let Some(byte) = bytes.get_mut(at / 8) {
                    *byte ^= 1 << (at % 8);
                }
            }
        }
        1 => bytes.truncate(pick(rng, bytes.len())),
        2 => bytes = messages[pick(rng, messages.len())].clone(),
        3 => {
            let at = pick(rng, bytes.len());
            let inserted: Vec<u8> = (0..pick(rng, 20)).map(|_| rng.next_u32() as u8).collect();
            bytes.splice(at..at, inserted);
        }
        _ => {
            let again = bytes.clone();
            bytes.extend(again);
        }
    }
    bytes
}
