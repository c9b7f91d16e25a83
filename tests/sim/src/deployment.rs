//! The OpenAI API as a platform has it that takes the model in the path and the key in the query:
//! `/openai/deployments/MODEL/chat/completions?key=KEY`.

use http::{HeaderValue, Request, Uri, header};
use hyper::body::Bytes;

/// The beginning of the path of every deployment.
pub const PATH: &str = "/openai/deployments/";

/// The request as the OpenAI API would get it; none for one that is to no deployment.
pub fn as_openai(request: &Request<Bytes>) -> Option<Request<Bytes>> {
    let (_model, operation) = request.uri().path().strip_prefix(PATH)?.split_once('/')?;
    let mut openai = request.clone();
    *openai.uri_mut() = format!("/v1/{operation}").parse::<Uri>().ok()?;
    let mut parameters = request.uri().query()?.split('&');
    let key = parameters.find_map(|parameter| parameter.strip_prefix("key="))?;
    let bearer = HeaderValue::try_from(format!("Bearer {key}")).ok()?;
    openai.headers_mut().insert(header::AUTHORIZATION, bearer);
    Some(openai)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_is_the_openai_api_under_another_path() {
        let at = |uri: &str| {
            let request = Request::post(uri).body(Bytes::from("{}"));
            as_openai(&request.expect("a request"))
        };
        let openai = at("/openai/deployments/gpt-5.6/chat/completions?a=b&key=sk-1");
        let openai = openai.expect("a deployment");
        assert_eq!(openai.uri().path(), "/v1/chat/completions");
        assert_eq!(openai.headers()[header::AUTHORIZATION], "Bearer sk-1");
        assert!(at("/v1/chat/completions?key=sk-1").is_none());
        assert!(at("/openai/deployments/gpt-5.6/chat/completions").is_none());
    }
}
