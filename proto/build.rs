//! Compiles the .proto files with a compiler written in Rust, so that no `protoc` need be installed.

use std::path::PathBuf;

use prost::Message;

const FILES: [&str; 9] = [
    "qkdnet/anchor/v1/anchor.proto",
    "qkdnet/figure/v1/figure.proto",
    "qkdnet/source/v1/source.proto",
    "qkdnet/detector/v1/detector.proto",
    "qkdnet/channel/v1/channel.proto",
    "qkdnet/kms/v1/kms.proto",
    "qkdnet/relay/v1/relay.proto",
    "qkdnet/fault/v1/fault.proto",
    "qkdnet/pace/v1/pace.proto",
];

/// Messages with secrets: their `Debug` is written by hand.
const SECRET: [&str; 5] = [
    ".qkdnet.source.v1.PhotonEpoch",
    ".qkdnet.source.v1.AttachOutput",
    ".qkdnet.channel.v1.Refill",
    ".qkdnet.channel.v1.RefillRequest",
    ".qkdnet.kms.v1.PairHello",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptor.bin");
    std::fs::write(out, descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").skip_debug(SECRET).compile_fds(descriptors)?;
    Ok(())
}
