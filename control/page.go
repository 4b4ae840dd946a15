package control

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

//go:embed page/page.html
var pageHTML string

//go:embed page/page.css
var pageCSS string

//go:embed page/page.js
var pageJS string

// page is the page as it is sent: one document that loads nothing but data
// from its own origin. Its style and script stand in it and are named by their
// hashes in the policy, so nothing else is ever run.
type page struct {
	body   []byte
	policy string
}

func newPage() page {
	style, script := strings.TrimSpace(pageCSS), strings.TrimSpace(pageJS)
	body := strings.NewReplacer("{{style}}", style, "{{script}}", script).Replace(pageHTML)
	policy := "default-src 'none'; style-src " + sourceHash(style) + "; script-src " + sourceHash(script) +
		"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	return page{[]byte(body), policy}
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
