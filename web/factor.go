package web

import (
	"bytes"
	"encoding/base64"
	"html/template"
	"image"
	"image/color"
	"image/png"
	"net/http"

	"github.com/boombuler/barcode/qr"

	"gatehouse/auth"
)

// factorPage shows a second factor that waits for its first code. Without a QR code it asks for the code alone: the secret was
// shown before, and showing it anew would make another one.
type factorPage struct {
	frame
	form
	Next, Destination string // of a login
	Token             string // of a link
	Username          string
	QR                template.URL // data: URL of a PNG
	Side              int          // of the QR code, in pixels
	Secret            []string     // in groups of four
	AppLink           template.URL // otpauth, for an app on the same device
	Again, AgainText  string       // where to begin anew, and key of its text
	FocusCode         bool
}

// drawFactor draws the page of a new second factor.
func (e *Edge) drawFactor(w http.ResponseWriter, r *http.Request, p *factorPage, enrolment *auth.Enrolment) {
	p.Title, p.FocusCode = say("factor.title"), enrolment == nil
	if enrolment == nil {
		e.render(w, r, "factor", p)
		return
	}
	picture, side, err := qrCode(enrolment.URL)
	if err != nil {
		e.drawProblem(w, r, e.unavailable(r, err))
		return
	}
	p.Wide, p.Username, p.Secret, p.Side = true, enrolment.Username, groups(enrolment.Secret), side
	// Both are made here and by auth, and hold nothing that came with the request.
	p.QR, p.AppLink = template.URL("data:image/png;base64,"+base64.StdEncoding.EncodeToString(picture)), template.URL(enrolment.URL)
	e.render(w, r, "factor", p)
}

const (
	qrModule = 4 // pixels
	qrQuiet  = 4 // modules of white around, as ISO/IEC 18004 asks; a dark page would hide the edge
)

// qrCode draws a text as the PNG of a QR code, and returns the length of its sides.
func qrCode(text string) (picture []byte, side int, err error) {
	code, err := qr.Encode(text, qr.M, qr.Auto)
	if err != nil {
		return nil, 0, err
	}
	modules := code.Bounds().Dx()
	side = (modules + 2*qrQuiet) * qrModule
	canvas := image.NewPaletted(image.Rect(0, 0, side, side), color.Palette{color.White, color.Black})
	for y := range side {
		for x := range side {
			at := image.Pt(x/qrModule-qrQuiet, y/qrModule-qrQuiet)
			if at.In(code.Bounds()) && code.At(at.X, at.Y) == color.Black {
				canvas.SetColorIndex(x, y, 1)
			}
		}
	}
	var out bytes.Buffer
	err = png.Encode(&out, canvas)
	return out.Bytes(), side, err
}

// groups takes a secret apart for people who copy it by eye.
func groups(secret string) []string {
	var list []string
	for len(secret) > 4 {
		list, secret = append(list, secret[:4]), secret[4:]
	}
	return append(list, secret)
}
