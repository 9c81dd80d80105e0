//! `Debug` of messages that carry secrets: what is none is printed.

use std::fmt::{Debug, Formatter, Result};

macro_rules! without_secrets {
    ($($message:path { $($field:ident),+ })+) => {$(
        impl Debug for $message {
            fn fmt(&self, f: &mut Formatter<'_>) -> Result {
                let mut shown = f.debug_struct(stringify!($message));
                $(shown.field(stringify!($field), &self.$field);)+
                shown.finish_non_exhaustive()
            }
        }
    )+};
}

without_secrets! {
    crate::source::v1::PhotonEpoch { epoch, count, end }
    crate::source::v1::AttachOutput { output, session, first_epoch }
    crate::channel::v1::Refill { block }
    crate::channel::v1::RefillRequest { generation }
    crate::kms::v1::PairHello { instance, peer_instance, generation, stream_end, grants, version }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_with_secrets_print_the_rest() {
        let secret = || bytes::Bytes::from_static(b"not to be seen");
        let messages: [Box<dyn Debug>; 5] = [
            // Which detector each photon goes to.
            Box::new(crate::source::v1::PhotonEpoch {
                epoch: 71,
                photons: secret(),
                counts: vec![secret()],
                ..Default::default()
            }),
            Box::new(crate::source::v1::AttachOutput { output: 71, choice_key: secret(), ..Default::default() }),
            Box::new(crate::channel::v1::Refill { block: 71, key: secret() }),
            Box::new(crate::channel::v1::RefillRequest { generation: 71, secret: secret() }),
            Box::new(crate::kms::v1::PairHello {
                generation: 71,
                id_secret: secret(),
                next_id_secret: secret(),
                ..Default::default()
            }),
        ];
        for message in messages {
            let text = format!("{message:?}");
            assert!(text.contains("71") && !text.contains("seen"), "{text}");
        }
    }
}
