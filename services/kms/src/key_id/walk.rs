//! Cycle walking (Black and Rogaway, CT-RSA 2002): AES-128 as often as it takes to come to a UUID of version 4 again.

use aes::Aes128;
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

use super::{gather, is_v4, spread};

pub(super) struct Walk(Aes128);

impl Walk {
    pub fn new(key: &[u8; 16]) -> Self {
        Self(Aes128::new(key.into()))
    }

    /// Of the low 122 bits.
    pub fn encrypt(&self, number: u128) -> u128 {
        walk(number, |block| self.0.encrypt_block(block))
    }

    pub fn decrypt(&self, number: u128) -> u128 {
        walk(number, |block| self.0.decrypt_block(block))
    }
}

fn walk(number: u128, step: impl Fn(&mut aes::Block)) -> u128 {
    let mut block = Array::from(spread(number).to_be_bytes());
    loop {
        step(&mut block);
        let value = u128::from_be_bytes(block.into());
        if is_v4(value) {
            return gather(value);
        }
    }
}
