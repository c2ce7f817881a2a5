package gateway

import (
	"fmt"
	"os"

	"gatehouse/configs"
	"gatehouse/web"
)

// site reads how the pages look and speak. What is wrong with a file is found here, before anything listens.
func site(pages configs.Pages) (web.Site, error) {
	s := web.Site{Name: pages.Name, Accent: pages.Accent.String(), Language: pages.Language}
	if pages.LogoFile != "" {
		logo, err := configs.ReadFile(pages.LogoFile)
		if err != nil {
			return s, fmt.Errorf("read pages.logo_file: %w", err)
		}
		s.Logo = logo
	}
	if pages.TextsDir != "" {
		if _, err := os.ReadDir(pages.TextsDir); err != nil { // a file system made of nothing would be no error
			return s, fmt.Errorf("read pages.texts_dir: %w", err)
		}
		s.Texts = os.DirFS(pages.TextsDir)
	}
	return s, nil
}
