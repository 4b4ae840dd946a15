package control

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

//go:embed page
var pageFiles embed.FS

// pageScripts are the parts of the page's one script, in their order: each may
// use what stands before it.
var pageScripts = []string{"core", "runtimes", "zip", "descriptor", "try", "feed", "home", "workers", "deploy", "function", "main"}

// page is the page as it is sent: one document that loads nothing but data
// from its own origin. Its style and script stand in it and are named by their
// hashes in the policy, so nothing else is ever run.
type page struct {
	body   []byte
	policy string
}

// newPage puts the page's files together. They are part of the binary: one that
// is not there is our own fault.
func newPage() page {
	read := func(name string) string {
		b, err := pageFiles.ReadFile("page/" + name)
		if err != nil {
			panic("control: the page is not whole: " + err.Error())
		}
		return strings.TrimSpace(string(b))
	}
	script := []string{"\"use strict\";", "(() => {"}
	for _, name := range pageScripts {
		script = append(script, read(name+".js"))
	}
	code, style := strings.Join(append(script, "})();"), "\n"), read("page.css")
	body := strings.NewReplacer("{{style}}", style, "{{script}}", code, "{{starters}}", string(starters())).Replace(read("page.html"))
	policy := "default-src 'none'; style-src " + sourceHash(style) + "; script-src " + sourceHash(code) +
		"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	return page{[]byte(body), policy}
}

// starters are the starter texts by runtime, as JSON that can stand in markup.
func starters() []byte {
	entries, err := pageFiles.ReadDir("page/starters")
	if err != nil {
		panic("control: the page is not whole: " + err.Error())
	}
	texts := map[string]string{}
	for _, e := range entries {
		text, err := pageFiles.ReadFile("page/starters/" + e.Name())
		if err != nil {
			panic("control: the page is not whole: " + err.Error())
		}
		texts[e.Name()] = string(text)
	}
	b, err := json.Marshal(texts) // escapes <, > and &
	if err != nil {
		panic("control: the starter texts are not JSON: " + err.Error())
	}
	return b
}

// sourceHash names an inline source. CSP Level 3, section 2.3.1.
func sourceHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// getPage sends the page, or signs in who comes by a one-time link: a session
// cookie and the page without the secret in its address.
func (s *Server) getPage(ctx *fasthttp.RequestCtx) {
	secret := string(ctx.QueryArgs().Peek("login"))
	// A look ahead uses nothing up: a browser's prefetch, a messenger's preview
	// with HEAD.
	ahead := strings.Contains(string(ctx.Request.Header.Peek("Sec-Purpose")), "prefetch")
	if secret != "" && ctx.IsGet() && !ahead {
		c := ctx.Conn().(*conn)
		from := remote(c)
		if !s.guard.allow(from) {
			ctx.Response.Header.Set("Retry-After", "1")
			s.fail(ctx, reasonTokenGuessing)
			return
		}
		if s.sessions.useLogin(secret, time.Now()) {
			if !s.setSession(ctx) {
				s.fail(ctx, reasonInternal)
				return
			}
			ctx.Response.Header.Set("Location", string(ctx.URI().PathOriginal()))
			ctx.SetStatusCode(fasthttp.StatusSeeOther)
			return
		}
		s.holdBack(ctx, c, from, reasonTokenWrong)
		if ctx.Response.StatusCode() != fasthttp.StatusUnauthorized {
			return
		}
		// For eyes: the page says that the link was used, and asks for the token.
		ctx.Response.Header.Del("WWW-Authenticate")
		ctx.SetStatusCode(fasthttp.StatusForbidden)
	}
	h := &ctx.Response.Header
	h.SetContentType("text/html; charset=utf-8")
	h.Set("Content-Security-Policy", s.page.policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("X-Frame-Options", "DENY")
	ctx.SetBody(s.page.body)
}
