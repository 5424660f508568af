pub mod grant;
pub mod livekit;
