//! A provider that answers at once: about a kilobyte of JSON, or a stream of chunks that
//! carry the time they were sent. Ends when its standard input does, so that it never
//! outlives the benchmark.

use std::{convert::Infallible, error::Error, io::Read as _, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::{
    body::{Body, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use memchr::memmem;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::Instant,
};

use crate::caller::now_nanos;

/// Content chunks of one stream, and the time between them.
pub(crate) const CHUNKS: usize = 100;
const CHUNK_EVERY: Duration = Duration::from_millis(10);

/// Serves on a free port of loopback.
#[expect(clippy::print_stdout, reason = "the parent reads the address from it")]
pub(crate) async fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    println!("listening mock http://{}", listener.local_addr()?);
    let (gone, mut parent_gone) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let mut rest = Vec::new();
        // Nothing ever comes but the end.
        std::io::stdin().read_to_end(&mut rest).ok();
        drop(gone);
    });
    loop {
        tokio::select! {
            biased;
            // Without the parent there is nobody to serve.
            _ = &mut parent_gone => return Ok(()),
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                tokio::spawn(serve(stream));
            }
        }
    }
}

async fn serve(stream: TcpStream) {
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    // Callers leave as they like.
    connection.await.ok();
}

/// The error is that of a body of two kinds; neither has any.
async fn answer(
    request: Request<Incoming>,
) -> hyper::Result<Response<impl Body<Data = Bytes, Error = Box<dyn Error + Send + Sync>>>> {
    let body = request.into_body().collect().await?.to_bytes();
    let has = |what: &[u8]| memmem::find(&body, what).is_some();
    if !has(b"\"stream\":true") {
        let mut response = Response::new(Either::Left(Full::new(Bytes::from_static(ANSWER.as_bytes()))));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        return Ok(response);
    }
    let body = StreamBody::new(events(has(b"\"include_usage\":true")));
    let mut response = Response::new(Either::Right(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

/// One event after the other, evenly from now on.
fn events(with_usage: bool) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    let start = Instant::now();
    let last = CHUNKS + 1;
    stream::unfold(0, move |at| async move {
        if at > last {
            return None;
        }
        let text = match at {
            0 => event(r#"{"role":"assistant","content":""}"#, "null"),
            at if at <= CHUNKS => {
                tokio::time::sleep_until(start + CHUNK_EVERY * at as u32).await;
                event(&format!(r#"{{"content":"{} "}}"#, now_nanos()), "null")
            }
            _ => {
                format!("{}{}data: [DONE]\n\n", event("{}", "\"stop\""), if with_usage { USAGE } else { "" })
            }
        };
        Some((Ok(Frame::data(Bytes::from(text))), at + 1))
    })
}

fn event(delta: &str, finish_reason: &str) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-8f2c1d7e\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,\"model\":\"bench-model\",\"system_fingerprint\":\"fp_44709d6fcb\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish_reason}}}]}}\n\n"
    )
}

const USAGE: &str = "data: {\"id\":\"chatcmpl-8f2c1d7e\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,\"model\":\"bench-model\",\"choices\":[],\"usage\":{\"prompt_tokens\":180,\"completion_tokens\":100,\"total_tokens\":280}}\n\n";

const ANSWER: &str = concat!(
    r#"{"id":"chatcmpl-8f2c1d7e","object":"chat.completion","created":1760000000,"model":"bench-model","#,
    r#""system_fingerprint":"fp_44709d6fcb","choices":[{"index":0,"message":{"role":"assistant","content":""#,
    "The control loop decides slowly and knows much; the data loop decides at once and knows what it was told. ",
    "A request takes the second: it meets a table that was agreed on before, a handful of counters that are ",
    "never older than the last answer, and a rule that is the same for everyone. What comes of it is counted, ",
    "and the counts travel back. So the table of the next minute is made of the answers of this one, and no ",
    "request ever waits for it. When the slow loop is away, the fast one goes on with what it has; when a ",
    "provider is away, the fast one notices first and tells. Neither needs the other in order to serve.",
    r#"","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":180,"#,
    r#""completion_tokens":130,"total_tokens":310,"prompt_tokens_details":{"cached_tokens":0}}}"#,
);
