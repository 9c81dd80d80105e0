//! One connection from its first request to its last.

use std::future::Future;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::head::Method;
use super::http_stream::{HttpStream, Stop};
use super::reply::{Problem, Reply};

/// A request as it arrived.
pub(super) struct Request<'r> {
    pub(super) method: Method,
    pub(super) target: &'r str,
    pub(super) body: &'r [u8],
}

/// Whatever answers the requests of one connection.
pub(super) trait Answer: Send {
    fn answer(&mut self, request: Request<'_>) -> impl Future<Output = Reply> + Send;

    /// What arrived was no request.
    fn refuse(&mut self, problem: Problem) -> Reply;
}

/// Answers one request after the other until the client, a mistake of the client, or `stop` ends it. A request that is
/// in work is answered before.
pub(super) async fn serve<S, A>(stream: S, limits: Limits, mut answers: A, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Answer,
{
    let mut stream = HttpStream::new(stream, limits);
    // Registered once for the whole connection, not once for every request.
    let mut stopped = Box::pin(stop.clone().cancelled_owned());
    loop {
        let message = match stream.next(stopped.as_mut()).await {
            Ok(message) => message,
            Err(Stop::Quiet) => return stream.close().await,
            Err(Stop::Refused(problem)) => {
                let reply = answers.refuse(problem);
                if stream.send(&reply, false, true).await.is_ok() {
                    stream.close_lingering().await;
                }
                return;
            }
        };
        let method = message.head.method;
        let request = Request { method, target: stream.target(&message), body: stream.body(&message) };
        let reply = answers.answer(request).await;
        let keep_alive = message.head.keep_alive && !reply.close && !stop.is_cancelled();
        if stream.send(&reply, keep_alive, method != Method::Head).await.is_err() {
            return;
        }
        stream.done(&message);
        if !keep_alive {
            return stream.close_lingering().await;
        }
    }
}
