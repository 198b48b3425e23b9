"""Where a build's files come from: directories, archives, repositories, URLs, clients, layouts."""
