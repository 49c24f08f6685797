//! Whether operators took the agent out of service: then it is not ready and sends its
//! callers away, but still serves what comes.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch;

/// In service until told otherwise.
#[derive(Debug, Default)]
pub(crate) struct Duty {
    /// For the request path.
    is_off: AtomicBool,
    reason: watch::Sender<Option<Arc<str>>>,
}

impl Duty {
    /// Out of service for that reason; None: back in service.
    pub(crate) fn set(&self, reason: Option<&str>) {
        self.is_off.store(reason.is_some(), Ordering::Relaxed);
        self.reason.send_if_modified(|current| {
            let changed = current.as_deref() != reason;
            if changed {
                if let Some(reason) = reason {
                    tracing::warn!(%reason, "out of service: not ready, serving what still comes");
                } else {
                    tracing::warn!("back in service");
                }
                *current = reason.map(Arc::from);
            }
            changed
        });
    }

    /// Whether callers shall go elsewhere.
    pub(crate) fn is_off(&self) -> bool {
        self.is_off.load(Ordering::Relaxed)
    }

    /// Why it is out of service; None: it is in service. Tells of changes.
    pub(crate) fn reason(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.reason.subscribe()
    }
}
