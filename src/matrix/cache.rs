//! A bounded memory of answers: what is full forgets what would go soonest.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

/// Entries of one cache, each of them a name and a name. Beyond it one is asked again that could
/// have been known, which costs a request.
const ENTRIES: usize = 1000;

/// Answers by name, each with its own end.
#[derive(Default)]
pub struct Cache<T> {
    /// Locked for a look or an insertion only.
    #[expect(clippy::disallowed_types, reason = "Matrix is off the packet path")]
    entries: std::sync::Mutex<HashMap<String, (Instant, T)>>,
}

impl<T: Clone> Cache<T> {
    /// What is known about `name`.
    pub fn get(&self, name: &str) -> Option<T> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (end, value) = entries.get(name)?;
        (*end > Instant::now()).then(|| value.clone())
    }

    /// Remembers for as long as told.
    pub fn put(&self, name: &str, value: T, life: Duration) {
        let now = Instant::now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= ENTRIES && !entries.contains_key(name) {
            entries.retain(|_, (end, _)| *end > now);
        }
        if entries.len() >= ENTRIES && !entries.contains_key(name) {
            let first = entries.iter().min_by_key(|(_, (end, _))| *end);
            if let Some(first) = first.map(|(name, _)| name.clone()) {
                entries.remove(&first);
            }
        }
        entries.insert(name.to_owned(), (now + life, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn answers_end_when_told() {
        let cache = Cache::default();
        cache.put("a", 1, MINUTE);
        cache.put("b", 2, Duration::ZERO);
        assert_eq!((cache.get("a"), cache.get("b")), (Some(1), None));
        tokio::time::advance(MINUTE).await;
        assert_eq!(cache.get("a"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_cache_forgets_what_goes_soonest() {
        let cache = Cache::default();
        cache.put("soon", 0, MINUTE);
        for entry in 1..ENTRIES {
            cache.put(&entry.to_string(), entry, 2 * MINUTE);
        }
        cache.put("one more", 0, 3 * MINUTE);
        assert_eq!(cache.get("soon"), None);
        assert_eq!(cache.entries.lock().unwrap().len(), ENTRIES);
        tokio::time::advance(2 * MINUTE).await;
        cache.put("another", 0, MINUTE);
        assert_eq!(cache.entries.lock().unwrap().len(), 2);
    }
}
