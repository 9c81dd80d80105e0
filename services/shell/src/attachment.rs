//! A module's first word to its source: the key of its choices, if it has one, goes sealed ([`crate::sealing`]).

use anyhow::{Context as _, Result};
use bytes::Bytes;
use proto::source::v1::AttachOutput;

use crate::sealing::KeyPair;

/// The module's end: the key is sealed for the source whose public key of this stream is `seal_to`.
pub fn seal(hello: AttachOutput, seal_to: &[u8]) -> Result<AttachOutput> {
    if hello.choice_key.is_empty() {
        return Ok(hello);
    }
    let pair = KeyPair::generate()?;
    let public_key = Bytes::copy_from_slice(pair.public_key());
    let sealed = pair.send_to(seal_to)?.seal(&binding(&hello), &hello.choice_key)?;
    Ok(AttachOutput { choice_key: sealed.into(), public_key, ..hello })
}

/// The source's end, whose keys of this stream `pair` are: the hello with its key as it is, in memory that is wiped.
pub fn open(pair: KeyPair, hello: AttachOutput) -> Result<AttachOutput> {
    if hello.choice_key.is_empty() {
        return Ok(hello);
    }
    let chain = pair.receive_from(&hello.public_key);
    let key = chain.and_then(|mut chain| chain.open(&binding(&hello), &hello.choice_key));
    let key = key.with_context(|| format!("open the key of the choices of output {}", hello.output))?;
    Ok(AttachOutput { choice_key: Bytes::from_owner(key), public_key: Bytes::new(), ..hello })
}

/// What the key must not be separated from.
fn binding(hello: &AttachOutput) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&hello.output.to_le_bytes());
    bytes[4..12].copy_from_slice(&hello.session.to_le_bytes());
    bytes[12..].copy_from_slice(&hello.first_epoch.to_le_bytes());
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn hello(choice_key: &'static [u8]) -> AttachOutput {
        AttachOutput { output: 1, session: 2, first_epoch: 3, choice_key: choice_key.into(), ..AttachOutput::default() }
    }

    #[test]
    fn a_key_of_choices_is_not_on_the_wire_and_comes_to_its_source_alone() {
        let [source, another] = [(); 2].map(|()| KeyPair::generate().unwrap());
        let sealed = seal(hello(&[9; 32]), source.public_key()).unwrap();
        assert!(!prost::Message::encode_to_vec(&sealed).windows(8).any(|bytes| bytes == [9; 8]));
        assert!(open(another, sealed.clone()).is_err());
        assert_eq!(open(source, sealed).unwrap(), hello(&[9; 32]));
    }

    #[test]
    fn a_key_that_came_unsealed_or_with_another_hello_is_refused() {
        let open = |spoil: fn(&mut AttachOutput)| {
            let source = KeyPair::generate().unwrap();
            let mut sealed = seal(hello(&[9; 32]), source.public_key()).unwrap();
            spoil(&mut sealed);
            open(source, sealed)
        };
        open(|_| {}).unwrap();
        let spoils: [fn(&mut AttachOutput); 5] = [
            |hello| hello.choice_key = vec![9; 32].into(),
            |hello| hello.public_key = Bytes::new(),
            |hello| hello.output += 1,
            |hello| hello.session += 1,
            |hello| hello.first_epoch += 1,
        ];
        for spoil in spoils {
            let said = crate::chain(&open(spoil).unwrap_err()).to_string();
            assert!(said.contains("the key of the choices of output"), "{said}");
        }
    }

    #[test]
    fn an_output_that_chooses_nothing_has_nothing_to_seal() {
        let source = KeyPair::generate().unwrap();
        let sent = seal(hello(&[]), source.public_key()).unwrap();
        assert_eq!(sent, hello(&[]));
        assert_eq!(open(source, sent).unwrap(), hello(&[]));
    }
}
