//! The VP8 payload descriptor (RFC 7741 section 4.2).

/// A parsed payload descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {}
