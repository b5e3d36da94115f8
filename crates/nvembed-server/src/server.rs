//! A server's life: bind, open the model, serve, drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use nvembed::Embedder;
use nvembed::queue::Queue;
use tokio::sync::{Semaphore, watch};

use crate::app::{App, Phase};
use crate::keys::Keys;
use crate::listen::{Address, Bound, Listener, Stream};
use crate::options::ServerOptions;
use crate::{Error, notify, routes};

/// A server that is bound to its addresses and does not answer yet.
pub struct Server {
    app: Arc<App>,
    listeners: Vec<Bound>,
    admin: Option<Bound>,
    addresses: Vec<Address>,
    signals: watch::Sender<Signal>,
}

/// What a server was told to do; a later one includes the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Signal {
    Serve,
    Drain,
    Stop,
}

/// Ends a server, from any thread.
#[derive(Clone)]
pub struct Control {
    app: Arc<App>,
    signals: watch::Sender<Signal>,
}

impl Control {
    /// The first call drains: the server is no longer ready, takes requests for [`ServerOptions::drain_delay`], then finishes
    /// those it has within [`ServerOptions::drain_timeout`]. The second call cancels them.
    pub fn drain(&self) {
        self.signals.send_modify(|signal| {
            *signal = if *signal == Signal::Serve { Signal::Drain } else { Signal::Stop };
        });
    }

    /// Reads the file of keys again. If it cannot be used, the old keys stay.
    ///
    /// # Errors
    /// [`Error::Keys`] when the file cannot be read or has no key.
    pub fn reload_keys(&self) -> Result<(), Error> {
        let Some(path) = &self.app.options.api_keys else { return Ok(()) };
        let keys = Keys::read(path).map_err(Error::Keys)?;
        tracing::info!(keys = keys.len(), "read the keys again");
        self.app.set_keys(keys);
        Ok(())
    }
}

impl Server {
    /// Checks the options, reads the keys and binds the addresses.
    ///
    /// # Errors
    /// [`Error::Option`], [`Error::Keys`] or [`Error::Listen`].
    pub fn bind(options: ServerOptions) -> Result<Self, Error> {
        options.check().map_err(Error::Option)?;
        let keys = options.api_keys.as_deref().map(Keys::read).transpose().map_err(Error::Keys)?;
        let bind = |address: &Address| {
            Bound::new(address).map_err(|source| Error::Listen { address: address.clone(), source })
        };
        let listeners = options.listen.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let admin = options.admin_listen.as_ref().map(bind).transpose()?;
        if keys.is_none() && !options.listen.iter().all(Address::is_local) {
            tracing::warn!("without --api-keys, everybody who reaches this address can use the server");
        }
        let addresses = listeners.iter().chain(&admin).map(Bound::address).collect::<Result<_, _>>();
        let addresses = addresses.map_err(Error::System)?;
        let app = Arc::new(App::new(options, keys, &routes::WORK));
        Ok(Self { app, listeners, admin, addresses, signals: watch::Sender::new(Signal::Serve) })
    }

    /// The addresses, with the ports that the system chose: those of `listen`, then that of `admin_listen`.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// What ends this server.
    pub fn control(&self) -> Control {
        Control { app: Arc::clone(&self.app), signals: self.signals.clone() }
    }

    /// Serves until [`Control::drain`] and the last answer. `open` opens the model, while health is already answered.
    ///
    /// # Errors
    /// [`Error::Model`] when the model cannot be used; [`Error::System`] when there are no threads.
    pub fn run(self, open: impl FnOnce() -> nvembed::Result<Embedder> + Send + 'static) -> Result<(), Error> {
        let Self { app, listeners, admin, addresses, signals } = self;
        // Probes of the administrator's address do not wait for a thread that writes answers.
        let admin_runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let admin_runtime = admin.is_some().then_some(admin_runtime).transpose().map_err(Error::System)?;
        let (_admin_close, admin_closed) = watch::channel(false);
        if let (Some(runtime), Some(admin)) = (&admin_runtime, admin) {
            let _inside = runtime.enter();
            let listener = admin.listener().map_err(Error::System)?;
            let (router, app) = (routes::admin_router(Arc::clone(&app)), Arc::clone(&app));
            runtime.spawn(accept(app, listener, router, Arc::new(GracefulShutdown::new()), admin_closed));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::System)?;
        let outcome = runtime.block_on(serve(&app, listeners, &addresses, &signals, open));
        app.stop_all();
        // Joins what still tokenizes, then the runs.
        drop(runtime);
        app.join_runs();
        if let Some(runtime) = admin_runtime {
            runtime.shutdown_background();
        }
        outcome
    }
}

async fn serve(
    app: &Arc<App>,
    listeners: Vec<Bound>,
    addresses: &[Address],
    signals: &watch::Sender<Signal>,
    open: impl FnOnce() -> nvembed::Result<Embedder> + Send + 'static,
) -> Result<(), Error> {
    let (graceful, router) = (Arc::new(GracefulShutdown::new()), routes::router(Arc::clone(app)));
    let (close, closed) = watch::channel(false);
    let mut loops = Vec::new();
    for listener in listeners {
        let listener = listener.listener().map_err(Error::System)?;
        let accept = accept(Arc::clone(app), listener, router.clone(), Arc::clone(&graceful), closed.clone());
        loops.push(tokio::spawn(accept));
    }
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    tracing::info!(addresses = addresses.join(" "), "listening; the model is being opened");
    let (mut options, queue) = (app.options.embed.clone(), app.options.queue.clone());
    (options.max_batch_tokens, options.max_batch_size) = (queue.max_batch_tokens, queue.max_batch_size);
    let opening = tokio::task::spawn_blocking(move || -> Result<Queue, Error> {
        let embedder = open()?;
        // An option out of range ends the server here, not every request.
        embedder.warm_up(&options)?;
        Ok(Queue::start(embedder, queue)?)
    });
    let mut signal = signals.subscribe();
    tokio::select! {
        opened = opening => {
            let lost = || Error::System(std::io::Error::other("opening the model panicked"));
            app.set_model(opened.map_err(|_| lost())??);
            app.enter(Phase::Ready);
            tracing::info!(seconds = app.started.elapsed().as_secs_f64(), "ready");
            notify::tell("READY=1");
        }
        // The model is not needed any more, and opening it cannot be stopped: the process ends when that is done.
        _ = signal.wait_for(|signal| *signal >= Signal::Drain) => return Ok(()),
    }
    let _ = signal.wait_for(|signal| *signal >= Signal::Drain).await;
    app.enter(Phase::Draining);
    notify::tell("STOPPING=1");
    let (delay, timeout) = (app.options.drain_delay, app.options.drain_timeout);
    tracing::info!(seconds = delay.as_secs_f64(), "draining: not ready, still taking requests");
    until_stop(delay, signals).await;
    close.send_replace(true);
    for accepting in loops {
        // A loop that panicked accepts nothing either.
        let _ = accepting.await;
    }
    let finish = async {
        match Arc::try_unwrap(graceful) {
            Ok(graceful) => graceful.shutdown().await,
            Err(_) => unreachable_loops().await,
        }
    };
    let mut finish = std::pin::pin!(finish);
    tokio::select! {
        () = &mut finish => {}
        () = until_stop(timeout, signals) => {
            tracing::warn!("the requests that are left are cancelled");
            app.stop_all();
            // Their answers still have to be written; a client that does not read gets none.
            let _ = tokio::time::timeout(Duration::from_secs(1), finish).await;
        }
    }
    tracing::info!("drained");
    Ok(())
}

/// The accept loops hold the other references, and have ended.
async fn unreachable_loops() {
    tracing::error!("an accept loop outlived the server; its connections are cut");
}

/// Waits, unless a second signal says that everything is to end at once.
async fn until_stop(time: Duration, signals: &watch::Sender<Signal>) {
    let mut signal = signals.subscribe();
    let _ = tokio::time::timeout(time, signal.wait_for(|signal| *signal == Signal::Stop)).await;
}

/// Accepts connections, at most so many at a time, until it is told to close.
async fn accept(
    app: Arc<App>,
    listener: Listener,
    router: Router,
    graceful: Arc<GracefulShutdown>,
    mut closed: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(app.options.max_connections));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, stream) = tokio::select! {
            next = next => next,
            _ = closed.wait_for(|closed| *closed) => return,
        };
        match (place, stream) {
            (Ok(place), Ok(stream)) => {
                let connection = connection(Arc::clone(&app), stream, router.clone(), graceful.watcher());
                tokio::spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            (_, Err(error)) => {
                // Too many open files, most likely: without a pause this loop would spin until there are fewer.
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            (Err(_), _) => return,
        }
    }
}

async fn connection(app: Arc<App>, stream: Stream, router: Router, watcher: hyper_util::server::graceful::Watcher) {
    app.metrics.connections.inc();
    match stream {
        Stream::Tcp(stream) => speak(&app, TokioIo::new(stream), router, watcher).await,
        #[cfg(unix)]
        Stream::Unix(stream) => speak(&app, TokioIo::new(stream), router, watcher).await,
    }
    app.metrics.connections.dec();
}

/// HTTP/1.1, or HTTP/2 without TLS for a client that begins with it.
async fn speak<S>(app: &App, stream: S, router: Router, watcher: hyper_util::server::graceful::Watcher)
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    // In hyper this time also limits how long a connection idles.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(app.options.idle_timeout);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30)).max_concurrent_streams(128);
    let has_asked = Arc::new(AtomicBool::new(false));
    let (asked, service) = (Arc::clone(&has_asked), TowerToHyperService::new(router));
    let service = hyper::service::service_fn(move |request| {
        asked.store(true, Ordering::Relaxed);
        hyper::service::Service::call(&service, request)
    });
    let connection = watcher.watch(builder.serve_connection(stream, service));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        outcome = &mut connection => {
            log_end(outcome);
            return;
        }
        () = tokio::time::sleep(app.options.header_timeout) => {
            if !has_asked.load(Ordering::Relaxed) {
                tracing::debug!("a connection that sent no request was closed");
                return;
            }
        }
    }
    log_end(connection.await);
}

/// A client that leaves in the middle is not our failure.
fn log_end(outcome: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = outcome {
        tracing::debug!(error, "a connection ended early");
    }
}
