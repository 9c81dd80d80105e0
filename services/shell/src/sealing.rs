//! Sealing key for one process at the other end of a stream, inside of whatever carries it.
//!
//! A transport keeps what it received in buffers that it uses again: key that came over it would lie in memory long
//! after the application has fetched it. So both ends agree on a secret (X25519, RFC 7748, with keys that serve one
//! stream) and derive one key per message from it (HMAC-SHA-256), each step forgetting the one before; a message is
//! AES-256-GCM under its own key. Who the other end is, is for the TLS around it to say.

use anyhow::{Context as _, Result, anyhow};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::hmac;
use ring::rand::SystemRandom;
use zeroize::Zeroizing;

/// Length of a public key.
pub const PUBLIC_KEY_BYTES: usize = 32;
/// What a sealed message is longer by.
pub const SEAL_BYTES: usize = 16;

/// One end's key of a stream, while the other end's is not known yet.
pub struct KeyPair {
    private: EphemeralPrivateKey,
    public: [u8; PUBLIC_KEY_BYTES],
}

impl KeyPair {
    pub fn generate() -> Result<Self> {
        let private = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new());
        let private = private.map_err(|_| anyhow!("no X25519 key could be made"))?;
        let public = private.compute_public_key().map_err(|_| anyhow!("no public key could be made"))?;
        let public = public.as_ref().try_into().context("a public key of another length")?;
        Ok(Self { private, public })
    }

    pub fn public_key(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        &self.public
    }

    /// The chain of the end that opens.
    pub fn receive_from(self, sender: &[u8]) -> Result<Chain> {
        let receiver = self.public;
        self.chain(sender, &receiver, sender)
    }

    /// The chain of the end that seals.
    pub fn send_to(self, receiver: &[u8]) -> Result<Chain> {
        let sender = self.public;
        self.chain(receiver, receiver, &sender)
    }

    fn chain(self, peer: &[u8], receiver: &[u8], sender: &[u8]) -> Result<Chain> {
        let peer = UnparsedPublicKey::new(&X25519, peer);
        let secret = agree_ephemeral(self.private, &peer, |shared| {
            mac(shared, &[b"qkdnet sealing v1", receiver, sender].concat())
        });
        Ok(Chain(secret.map_err(|_| anyhow!("the other end's X25519 key is none"))?))
    }
}

/// The secret from which the key of the next message comes.
pub struct Chain(Zeroizing<[u8; 32]>);

impl Chain {
    /// Ciphertext and tag. `about` is what the message must not be separated from.
    pub fn seal(&mut self, about: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        let mut sealed = Vec::with_capacity(plain.len() + SEAL_BYTES);
        sealed.extend_from_slice(plain);
        let sealing = self.next_key()?.seal_in_place_append_tag(nonce(), Aad::from(about), &mut sealed);
        sealing.map_err(|_| anyhow!("the cipher refused"))?;
        Ok(sealed)
    }

    /// What the other end sealed at the same step.
    pub fn open(&mut self, about: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let mut plain = Zeroizing::new(sealed.to_vec());
        let opened = self.next_key()?.open_in_place(nonce(), Aad::from(about), &mut plain);
        let bytes = opened.map_err(|_| anyhow!("what came was not sealed for this end of this stream"))?.len();
        plain.truncate(bytes);
        Ok(plain)
    }

    fn next_key(&mut self) -> Result<LessSafeKey> {
        let key = mac(&self.0[..], b"message");
        self.0 = mac(&self.0[..], b"next");
        let key = UnboundKey::new(&AES_256_GCM, &key[..]).map_err(|_| anyhow!("the cipher refused its key"))?;
        Ok(LessSafeKey::new(key))
    }
}

/// A key serves one message, so that its nonce need not differ from any other's.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn mac(key: &[u8], message: &[u8]) -> Zeroizing<[u8; 32]> {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut bytes = Zeroizing::new([0; 32]);
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn chains() -> (Chain, Chain) {
        let (receiver, sender) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let (to, from) = (*receiver.public_key(), *sender.public_key());
        (sender.send_to(&to).unwrap(), receiver.receive_from(&from).unwrap())
    }

    #[test]
    fn what_one_end_seals_the_other_opens_in_the_same_order() {
        let (mut sender, mut receiver) = chains();
        for message in [&b"one"[..], b"", &[7; 100_000]] {
            let sealed = sender.seal(b"about", message).unwrap();
            assert_eq!(sealed.len(), message.len() + SEAL_BYTES);
            assert_eq!(*receiver.open(b"about", &sealed).unwrap(), message);
        }
    }

    #[test]
    fn the_same_message_is_never_sealed_the_same_way() {
        let (mut first, _) = chains();
        let (mut second, _) = chains();
        let sealed = [&mut first, &mut second].map(|chain| [(); 2].map(|()| chain.seal(b"", &[0; 32]).unwrap()));
        let mut all = sealed.as_flattened().to_vec();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn what_was_changed_moved_or_is_another_streams_does_not_open() {
        let (mut sender, mut receiver) = chains();
        let mut sealed = sender.seal(b"about", b"key").unwrap();
        assert!(chains().1.open(b"about", &sealed).is_err());
        sealed[0] ^= 1;
        assert!(receiver.open(b"about", &sealed).is_err());
        let second = sender.seal(b"about", b"key").unwrap();
        let _ = sender.seal(b"about", b"key").unwrap();
        assert!(receiver.open(b"other", &second).is_err());
        assert!(receiver.open(b"about", &second).is_err(), "its step is over");
        assert!(receiver.open(b"about", b"short").is_err());
    }

    #[test]
    fn a_public_key_that_is_none_is_refused() {
        for bad in [&[][..], &[1; 31], &[0; 32]] {
            assert!(KeyPair::generate().unwrap().send_to(bad).is_err(), "{bad:?}");
            assert!(KeyPair::generate().unwrap().receive_from(bad).is_err(), "{bad:?}");
        }
    }
}
