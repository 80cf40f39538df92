from sstoken.cli import main

main()
