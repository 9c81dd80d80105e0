//! IDs of keys, made and read, in both forms side by side. Reading one of the old form includes trying it as a new one.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use kms::key_id::{Described, Form, IdCodec, KeyPlace};

/// As many IDs as it takes for the old form's steps, which differ from ID to ID, to come near their mean of 64.
const IDS: u64 = 4096;

fn forms(criterion: &mut Criterion) {
    let codec = IdCodec::new(1, &core::array::from_fn(|i| i as u8));
    let (master, slave) = (codec.tag("university"), codec.tag("inria"));
    let describe = |start| Described {
        place: KeyPlace { generation: 1, start, bytes: 32, from_coordinator: true },
        master,
        slave,
    };
    for (name, form) in [("cycle walking", Form::CycleWalking), ("FF1", Form::Ff1)] {
        let mut start = 0;
        criterion.bench_function(&format!("key ID, encode, {name}"), |bencher| {
            bencher.iter(|| {
                start = (start + 32) % (32 * IDS);
                codec.encode(black_box(describe(start)), form)
            });
        });
        let ids: Vec<_> = (0..IDS).map(|i| codec.encode(describe(32 * i), form).unwrap()).collect();
        let mut ids = ids.iter().cycle();
        criterion.bench_function(&format!("key ID, decode, {name}"), |bencher| {
            bencher.iter(|| codec.decode(black_box(ids.next().unwrap())));
        });
    }
}

criterion_group!(benches, forms);
criterion_main!(benches);
