"""The language of Dockerfiles, as BuildKit's frontend 1.x has it: values and functions, no I/O.

From bytes to what a build is to do, in this order:

==================  ==============================================================================
``parsing``         ``parse(content, name)`` returns a ``Dockerfile`` of nodes with their places;
                    ``directive(content, "check")`` a directive alone
``stages``          ``read(dockerfile)`` returns ``Stages``: global ARGs and stages;
                    ``trigger(text, place)`` reads what an image's ONBUILD says
``instructions``    a class each: ``From Arg Env Label Run Copy Add Cmd Entrypoint Shell
                    Healthcheck Expose User Workdir Volume StopSignal Maintainer OnBuild``;
                    ``expand(instruction, expander)`` puts variables into those words that take any
``mounts``          ``Mount`` and ``Device`` of RUN
``expansion``       ``Expander(environment, escape)`` with ``word``, ``raw`` and ``words`` notes
                    which variables were ``used`` and which were ``missing``
``exposing``        ``read(words)`` of an expanded EXPOSE: the ports
``lint``            ``Linter(options_of(content, override))`` collects findings
``checks``          ``check_file(linter, stages)`` and, on the way, ``check_base``,
                    ``check_platform``, ``check_default_bases``, ``check_base_image`` of each FROM
                    and ``StageChecks(linter, base)`` of each instruction; ``rules`` has their words
``errors``          ``Place``, ``Source``, ``DockerfileError``; ``report(error)`` prints one
==================  ==============================================================================

Errors are all ``DockerfileError``, which is an ``InvalidArgumentError``.
"""
