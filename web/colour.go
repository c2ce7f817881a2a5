package web

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
)

// colour is an sRGB colour: red, green, blue.
type colour [3]uint8

var (
	white = colour{0xff, 0xff, 0xff}
	black = colour{}
)

// readable is the least contrast of text (WCAG 2.2, success criterion 1.4.3, level AA).
const readable = 4.5

// parseColour reads #rrggbb and nothing else: what it returns goes into a style sheet.
func parseColour(text string) (colour, error) {
	var c colour
	digits, ok := strings.CutPrefix(text, "#")
	raw, err := hex.DecodeString(digits)
	if !ok || err != nil || copy(c[:], raw) != len(c) || len(raw) != len(c) {
		return c, errors.New("a colour must be of the form #rrggbb, as in #2f5bd0")
	}
	return c, nil
}

func (c colour) String() string { return fmt.Sprintf("#%02x%02x%02x", c[0], c[1], c[2]) }

// luminance is the relative luminance of WCAG 2.2.
func (c colour) luminance() float64 {
	linear := func(v uint8) float64 {
		s := float64(v) / 255
		if s <= 0.04045 {
			return s / 12.92
		}
		return math.Pow((s+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(c[0]) + 0.7152*linear(c[1]) + 0.0722*linear(c[2])
}

// contrast is the contrast ratio of WCAG 2.2, from 1 to 21.
func (c colour) contrast(other colour) float64 {
	lighter, darker := c.luminance(), other.luminance()
	return (max(lighter, darker) + 0.05) / (min(lighter, darker) + 0.05)
}

// ink is what can be read on the colour: white or else black. One of them always can, since 4.5² is less than 21.
func (c colour) ink() colour {
	if c.contrast(white) >= readable {
		return white
	}
	return black
}

// readableOn returns the colour itself or, where it cannot be read on the surface, the nearest mixture with black or white that
// can.
func (c colour) readableOn(surface colour) colour {
	towards := surface.ink()
	for part := 0; part < 100; part += 5 {
		if mixed := c.mix(towards, part); mixed.contrast(surface) >= readable {
			return mixed
		}
	}
	return towards
}

// mix takes part per cent of another colour.
func (c colour) mix(other colour, part int) colour {
	for i := range c {
		c[i] = uint8((int(c[i])*(100-part) + int(other[i])*part) / 100)
	}
	return c
}
