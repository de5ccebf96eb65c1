//! Signals: the first stops a run and lets it clean up, the second leaves at once and says how to clean up later.

use std::io::Write;
use std::sync::{Arc, OnceLock};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What stopped a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// A polite kill, or a terminal that went away.
    Terminate,
}

impl Signal {
    /// 128 and the signal's number, as shells have it.
    pub fn exit_code(self) -> u8 {
        match self {
            Signal::Interrupt => 130,
            Signal::Terminate => 143,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Signal::Interrupt => "SIGINT",
            Signal::Terminate => "SIGTERM",
        }
    }
}

/// Watches for signals until the process ends.
#[derive(Debug, Clone)]
pub struct Watch(Arc<OnceLock<Signal>>);

impl Watch {
    /// The signal that stopped the run, where one did.
    pub fn interrupted_by(&self) -> Option<Signal> {
        self.0.get().copied()
    }
}

/// Begins to watch: the first signal cancels, and its name is `told`.
pub fn watch(told: impl Fn(&'static str) + Send + 'static, cancel: CancellationToken) -> Watch {
    let first = Arc::new(OnceLock::new());
    let watch = Watch(Arc::clone(&first));
    tokio::spawn(async move {
        // Without signal handling a signal ends the process, which is no worse than not to start.
        let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
            signal(SignalKind::hangup()),
        ) else {
            return;
        };
        loop {
            let seen = tokio::select! {
                _ = interrupt.recv() => Signal::Interrupt,
                _ = terminate.recv() => Signal::Terminate,
                _ = hangup.recv() => Signal::Terminate,
            };
            if first.set(seen).is_err() {
                let _ = writeln!(
                    std::io::stderr(),
                    "left at once: remove what is left by `conformance clean --cluster NAME`"
                );
                std::process::exit(seen.exit_code().into());
            }
            told(seen.name());
            cancel.cancel();
        }
    });
    watch
}
