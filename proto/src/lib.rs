//! The messages and services that qkdnet's containers speak, compiled from the `.proto` files beside this crate.

#![allow(clippy::large_enum_variant)] // generated types

mod secret;

/// Every message and service, for gRPC reflection.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

pub mod anchor {
    pub mod v1 {
        tonic::include_proto!("qkdnet.anchor.v1");
    }
}

pub mod figure {
    pub mod v1 {
        tonic::include_proto!("qkdnet.figure.v1");
    }
}

pub mod source {
    pub mod v1 {
        tonic::include_proto!("qkdnet.source.v1");
    }
}

pub mod detector {
    pub mod v1 {
        tonic::include_proto!("qkdnet.detector.v1");
    }
}

pub mod channel {
    pub mod v1 {
        tonic::include_proto!("qkdnet.channel.v1");
    }
}

pub mod kms {
    pub mod v1 {
        tonic::include_proto!("qkdnet.kms.v1");
    }
}

pub mod relay {
    pub mod v1 {
        tonic::include_proto!("qkdnet.relay.v1");
    }
}

pub mod fault {
    pub mod v1 {
        tonic::include_proto!("qkdnet.fault.v1");
    }
}

pub mod pace {
    pub mod v1 {
        tonic::include_proto!("qkdnet.pace.v1");
    }
}
